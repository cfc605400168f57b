"""One command for everything: a fleet for one run, the run, and no fleet afterwards.

Whatever happens in between (a failure, Ctrl-C), the machines are ended, and the clouds are asked
whether they are. Only what kills stemctl itself leaves them: the next call finds the run then.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import psutil
from stemfleet.clouds.registry import CLOUDS

from stemctl.dispatch.report import Report
from stemctl.errors import StemctlError
from stemctl.fleet.stack import Endpoint, Fleet
from stemctl.money.speeds import Boot, learn_boot
from stemctl.rented.ephemeral import Ephemeral, Order, again
from stemctl.steps import Step

ENDING_S = 60.0
"""How long the machines are paid for after the last track."""
PATIENCE_S = 5.0
"""How long an engine that was told to stop goes on waiting for workers, until it is told again."""

Separate = Callable[[Order, Fleet, float | None], Report]
"""The run itself, and what it may cost."""


@dataclass
class Ended:
    """How it ended."""

    stack: str
    folder: Path
    """The stack's project."""
    report: Report | None = None
    error: StemctlError | None = None
    """Why there is no report."""
    kept: bool = False
    proven: bool = False
    """Every cloud of the run lists none of its machines."""
    leak: str | None = None
    """Why that is not known: machines may still cost money."""
    interrupted: bool = False
    seconds: float = 0.0
    """From the first renting to the last machine's end."""
    usd: float = 0.0
    """What the machines cost in that time, as the clouds tell their prices and when they count."""
    starting: bool = False
    """The engine is starting the workers."""

    @property
    def exit_code(self) -> int:
        """That of the report; 1 at least while machines may be left; 130: stopped in time."""
        code = 130 if self.interrupted else 2 if self.report is None else self.report.exit_code
        return max(code, 1) if self.leak else code

    def as_json(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {
            **(self.report.as_json() if self.report else {"tracks": []}),
            "error": str(self.error) if self.error else self.report and self.report.error,
            "stack": self.stack,
            "kept": self.kept,
            "proven": self.proven,
            "leak": self.leak,
            "seconds": round(self.seconds, 1),
            "usd": round(self.usd, 4),
            "exit_code": self.exit_code,
        }


def carry_out(stack: Ephemeral, separate: Separate) -> Ended:
    """Do what the stack's order says, and end its machines, unless they are to be kept."""
    ended = Ended(stack.order.stack, stack.folder)
    began = time.monotonic()
    fleet: Fleet | None = None
    up_s = 0.0
    with _interrupts(ended):
        try:
            ended.starting = True
            with Step("Renting and starting the workers", "some minutes") as step:
                fleet = stack.up(step.tell)
            ended.starting = False
            up_s = step.seconds
            if not ended.interrupted:
                spent = _usd(fleet, time.monotonic() - began + ENDING_S)
                ended.report = separate(stack.order, fleet, _left(stack.order.budget, spent))
        except StemctlError as error:
            ended.error = error
        except BaseException:  # nor does a fault of this program leave machines
            end(stack)
            raise
        ended.starting = False
        interrupted = ended.interrupted or bool(ended.report and ended.report.signal)
        if stack.order.keep and ended.report and not interrupted:
            stack.keep()
            ended.kept = True
        else:
            _end(stack, ended, fleet, up_s)
    ended.seconds = time.monotonic() - began
    ended.usd = _usd(fleet, ended.seconds) if fleet else 0.0
    return ended


def _usd(fleet: Fleet, seconds: float) -> float:
    """What the fleet costs from the first renting on."""
    return sum(one.usd_per_hour * (seconds - _free_s(one)) / 3600 for one in fleet.endpoints)


def _free_s(worker: Endpoint) -> float:
    """How much of a worker's boot its cloud does not charge, in seconds."""
    cloud = CLOUDS.get(worker.cloud)
    return worker.boot_seconds if cloud and cloud.boots_free else 0.0


def _end(stack: Ephemeral, ended: Ended, fleet: Fleet | None, up_s: float) -> None:
    try:
        ending_s = end(stack)
    except StemctlError as error:
        ended.leak = str(error)
        return
    ended.proven = True
    if fleet is None:
        return
    for cloud in stack.order.clouds:
        free = [_free_s(one) for one in fleet.endpoints if one.cloud == cloud]
        learn_boot(cloud, Boot(up_s + ending_s, statistics.fmean(free or [0.0])))


def end(stack: Ephemeral) -> float:
    """End a run's machines, and prove it; the seconds that it took.

    Raises:
        CloudsError: a cloud lists some of them still, or cannot be asked.
        EngineError: there is no engine.
    """
    with Step("Ending the machines", "and asking the clouds whether they are gone") as step:
        stack.destroy(step.tell)
    return step.seconds


def _left(budget: float | None, spent: float) -> float | None:
    return None if budget is None else max(0.0, budget - spent)


def separated(order: Order, fleet: Fleet, budget: float | None) -> Report:
    """The run itself, as `stemctl submit` does it."""
    from stemctl.asked.wishes import Wishes, read_wishes
    from stemctl.inputs.find import find_inputs
    from stemctl.places.bucket import bucket_of
    from stemctl.run import Asked, run

    inputs = [text if "://" in text else str(order.folder / text) for text in order.inputs]
    out = order.out if bucket_of(order.out) else order.folder / order.out
    found = find_inputs(inputs, out, read_wishes(order.said, Wishes()))
    return anyio.run(run, found, fleet, Asked(out=out, budget=budget))


def end_all(orders: Iterable[Order]) -> list[str]:
    """End the machines of all these runs; the names of their stacks."""
    ended = []
    for order in orders:
        with again(order) as stack:
            end(stack)
        ended.append(order.stack)
    return ended


def advice(order: Order) -> str:
    """What to do with the machines of a run that did not come to its end."""
    return (
        f"run {order.stack} ({order.in_words}) was cut off, and its machines may still cost money: "
        "finish it (`stemctl run --finish`), or destroy them (`stemctl run --destroy`)"
    )


def told(ended: Ended) -> Iterator[str]:
    """What to tell people of it, in lines."""
    if ended.report:
        yield from (
            f"{one.name}: {one.end}{f', {one.error}' if one.error else ''}"
            for one in ended.report.outcomes
        )
        yield ended.report.summary()
    if ended.error:
        yield f"not done: {ended.error}"
    yield f"{ended.seconds / 60:.1f} min, at most ${ended.usd:.2f}"
    if ended.kept:
        yield (
            f"the machines go on running, as asked: use them with --stack {ended.stack} --project "
            f"{ended.folder}, end them with `stemctl run --destroy`"
        )
    elif ended.leak:
        yield f"MACHINES MAY BE LEFT: {ended.leak}; end them with `stemctl run --destroy`"
    else:
        yield "the clouds list none of this run's machines any more"


@contextlib.contextmanager
def _interrupts(ended: Ended) -> Iterator[None]:
    """Within, Ctrl-C and a request to end are noted, and passed on to the engine."""

    def stop_engine() -> None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process().children() if ended.starting else ():
                if child.name().startswith("pulumi"):
                    child.send_signal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        first, ended.interrupted = not ended.interrupted, True
        if not first:
            return
        print("\nstopping: the machines of this run are ended", file=sys.stderr, flush=True)
        if number == signal.SIGTERM:  # of Ctrl-C the terminal has told the engine too
            stop_engine()
        again = threading.Timer(PATIENCE_S, stop_engine)
        again.daemon = True
        again.start()

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
