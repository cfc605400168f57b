"""A stack that exists for one run, by Pulumi's Automation API on the project's own program.

Its folder, in the user's state directory, holds a link to the program, the stack's configuration,
the order that the run carries out, and a lock that is held while the run lives. So a run that was
cut off is found by the next one, which can finish it or end its machines; the folder goes when the
clouds list none of them any more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import platformdirs
import psutil
from pydantic import BaseModel, ConfigDict, ValidationError
from stemfleet.clouds.base import CloudError
from stemfleet.clouds.label import stack_prefix
from stemfleet.clouds.registry import find_cloud

from stemctl.engine import find_engine
from stemctl.errors import CloudsError, StackError
from stemctl.fleet.stack import Fleet, read_fleet
from stemctl.fleet.state import project_name
from stemctl.lock import take_lock

if TYPE_CHECKING:
    from pulumi.automation import Stack

ORDER, LOCK, PASSPHRASE, KEPT = "order.json", "lock", "passphrase", "kept"
PROOF_TRIES, PROOF_PAUSE_S = 5, 3.0
SETTLE_S = 30.0
"""How long an engine whose stemctl was killed may take to end in order."""


class Order(BaseModel):
    """What a run is to do, complete: it can be carried out again from this alone."""

    model_config = ConfigDict(frozen=True)

    project: Path
    stack: str
    groups: tuple[dict[str, Any], ...]
    max_usd_per_hour: float
    inputs: tuple[str, ...]
    folder: Path
    """Where relative inputs are looked for."""
    out: Path
    said: dict[str, str | None]
    """What is asked of every song, as it was written on the command line."""
    budget: float | None = None
    keep: bool = False
    in_words: str = ""

    @property
    def clouds(self) -> list[str]:
        """On which its machines are."""
        return list(dict.fromkeys(str(group["cloud"]) for group in self.groups))


def runs_folder() -> Path:
    """Where the folders of such stacks are."""
    return platformdirs.user_state_path("stemfleet") / "runs"


def new_name(now: datetime) -> str:
    """A name for the stack of a run that begins now; no other run's."""
    return f"run-{now:%y%m%d-%H%M%S}-{secrets.token_hex(2)}"


class Ephemeral:
    """One such stack."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.folder = runs_folder() / order.stack

    def up(self, tell: Callable[[str], None]) -> Fleet:
        """Rent and start what the order says; the fleet, once every worker has proven itself.

        Raises:
            StackError: the engine has failed; its last lines say why.
        """
        from pulumi.automation import CommandError

        try:
            self._stack().up(on_output=lambda line: tell(line.strip()), color="never")
            outputs = {name: one.value for name, one in self._stack().outputs().items()}
        except CommandError as error:
            raise StackError(f"the fleet of this run cannot be had: {reason(error)}") from None
        return read_fleet(outputs, self.order.stack)

    def destroy(self, tell: Callable[[str], None]) -> None:
        """End its machines, prove it, and forget the stack.

        Where the engine fails, as over a state that a killed one has left cut short, the machines
        are ended by their labels alone.

        Raises:
            CloudsError: a cloud lists some of its machines still, or cannot be asked.
            EngineError: there is no engine.
        """
        from pulumi.automation import CommandError

        try:
            self._stack().destroy(on_output=lambda line: tell(line.strip()), color="never")
        except CommandError as error:
            tell(reason(error))
        self.prove()
        with contextlib.suppress(CommandError):  # a stack without machines costs nothing
            self._stack().workspace.remove_stack(self.order.stack, force=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def settle(self) -> None:
        """End what a killed stemctl has left at work on the stack, and free the stack of it."""
        from pulumi.automation import CommandError

        left = [process for process in psutil.process_iter() if _is_at_work(process, self.folder)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(left, timeout=SETTLE_S)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        with contextlib.suppress(CommandError):  # it was free already
            self._stack().cancel()

    def keep(self) -> None:
        """Note that its machines shall go on running."""
        (self.folder / KEPT).touch()

    def prove(self) -> None:
        """Ask every cloud of the run for its machines until it lists none.

        What the engine does not know of, as one that was killed could not note it, is ended here.

        Raises:
            CloudsError: one does list some, or cannot be asked.
        """
        prefix = stack_prefix(project_name(self.order.project), self.order.stack)
        for cloud in self.order.clouds:
            left = "it was not asked"
            for attempt in range(PROOF_TRIES):
                try:
                    machines = find_cloud(cloud).machines(prefix)
                    left = ", ".join(machine.label for machine in machines)
                    for machine in machines:
                        find_cloud(cloud).destroy(machine.label)
                except CloudError as error:
                    left = f"{left}: {error}"
                if not left:
                    break
                time.sleep(PROOF_PAUSE_S if attempt + 1 < PROOF_TRIES else 0)
            if left:
                raise CloudsError(f"{cloud} may still run machines of this run: {left}")

    def _stack(self) -> Stack:
        from pulumi.automation import LocalWorkspaceOptions, PulumiCommand, create_or_select_stack

        engine = find_engine()
        bin_folder = engine.pulumi.parent
        command = PulumiCommand(
            root=str(bin_folder.parent) if bin_folder.name == "bin" else None,
            skip_version_check=True,
        )
        variables = {**engine.variables(), **self._passphrase()}
        options = LocalWorkspaceOptions(pulumi_command=command, env_vars=variables)
        umask = os.umask(0o077)  # the state is nobody else's to read
        try:
            return create_or_select_stack(self.order.stack, work_dir=str(self.folder), opts=options)
        finally:
            os.umask(umask)

    def _passphrase(self) -> Mapping[str, str]:
        """The user's own, if he has one, else that of this run."""
        own = self.folder / PASSPHRASE
        return {"PULUMI_CONFIG_PASSPHRASE_FILE": str(own)} if own.exists() else {}


def _is_at_work(process: psutil.Process, folder: Path) -> bool:
    """Whether it is an engine that runs in the folder."""
    try:
        return process.name() == "pulumi" and Path(process.cwd()).samefile(folder)
    except (psutil.Error, OSError):
        return False


def reason(error: Exception) -> str:
    """The lines of the engine's failure that tell people something."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith("error:") and "update failed" not in line]
    return (
        "; ".join(dict.fromkeys(line.removeprefix("error:").strip() for line in told))
        or (" ".join(lines)[-500:])
    )


@contextlib.contextmanager
def begin(order: Order) -> Iterator[Ephemeral]:
    """A fresh stack for an order; nothing is rented yet."""
    import yaml  # type: ignore[import-untyped]

    folder = runs_folder() / order.stack
    folder.mkdir(parents=True, mode=0o700)
    lock = _locked(folder / LOCK)
    if lock is None:
        raise StackError(f"another run has {folder}: try again")
    try:
        shutil.copy(order.project / "Pulumi.yaml", folder)
        for name in ("infra", ".venv"):
            (folder / name).symlink_to((order.project / name).resolve())
        if not os.environ.get("PULUMI_CONFIG_PASSPHRASE") and not os.environ.get(
            "PULUMI_CONFIG_PASSPHRASE_FILE"
        ):
            file = folder / PASSPHRASE
            file.touch(0o600)
            file.write_text(secrets.token_urlsafe(24))
        project = project_name(order.project)
        document = {
            "config": {
                f"{project}:groups": list(order.groups),
                f"{project}:maxUsdPerHour": f"{order.max_usd_per_hour:g}",
            }
        }
        (folder / f"Pulumi.{order.stack}.yaml").write_text(yaml.safe_dump(document))
        beside = folder / f"{ORDER}.new"
        beside.write_text(order.model_dump_json(indent=1))
        beside.replace(folder / ORDER)
        yield Ephemeral(order)
    finally:
        lock.close()


def left_behind(*, kept: bool = False) -> list[Order]:
    """The orders of runs that did not come to their end, the oldest first; no living run's.

    ``kept``: also of those whose machines were to go on running.
    """
    found = []
    for path in sorted(runs_folder().glob(f"*/{ORDER}")):
        lock = _locked(path.with_name(LOCK))
        if lock is None:
            continue
        lock.close()
        if path.with_name(KEPT).exists() and not kept:
            continue
        try:
            found.append(Order.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            continue
    return found


@contextlib.contextmanager
def again(order: Order) -> Iterator[Ephemeral]:
    """The stack of a run that was cut off.

    Raises:
        StackError: another run has taken it up.
    """
    lock = _locked(runs_folder() / order.stack / LOCK)
    if lock is None:
        raise StackError(f"another stemctl has taken up the run {order.stack}")
    try:
        stack = Ephemeral(order)
        stack.settle()
        yield stack
    finally:
        lock.close()


def _locked(path: Path) -> IO[bytes] | None:
    """The lock; None where another process has it, or where it is not there any more."""
    try:
        return take_lock(path)
    except OSError:
        return None
