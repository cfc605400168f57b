"""Serves the application on a socket, beside the runner, until a signal ends both."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import anyio
import uvicorn

from stemserve.errors import SettingsError
from stemserve.files import lock
from stemserve.jobs.store import Store
from stemserve.keeping.inputs import Inputs
from stemserve.keeping.retention import Retention
from stemserve.lease import Lease, doing
from stemserve.machine import end_machine, find_machine
from stemserve.routes.metrics import present
from stemserve.routes.parts import Parts, attach
from stemserve.running.runner import Runner
from stemserve.settings import ENV_PREFIX, Settings
from stemserve.tls import server_context
from stemserve.web.app import create_app
from stemserve.web.connections import limited_protocol

BACKLOG = 128
_LOOK_S = 0.1
_GRACE_S = 1
"""What calls that are under way get at the end."""

_log = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """Leaves the signals to `serve`, which has the runner to end as well."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SettingsError: the socket or the data directory cannot be used, or are not to be.
    """
    with listen(settings) as listening, _opened(settings) as parts:
        try:
            context = server_context(settings)
        except OSError as error:
            raise SettingsError(f"data_dir: {error}. Choose a folder to write to.") from error
        anyio.run(_serve, parts, listening, context)


@contextmanager
def _opened(settings: Settings) -> Iterator[Parts]:
    """The parts over the data directory, which is this process's own until they are closed."""
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = lock(folder / "worker.lock")
        if held is None:
            raise SettingsError(
                f"data_dir: another worker runs on {folder}. Give each one its own."
            )
        inputs = Inputs(folder / "inputs", settings.input_limit, settings.keep_free)
        store = Store(folder / "jobs.sqlite3")
    except OSError as error:
        raise SettingsError(f"data_dir: {error}. Choose a folder to write to.") from error
    except sqlite3.Error as error:
        raise SettingsError(
            f"data_dir: {folder / 'jobs.sqlite3'} cannot be used: {error}. Move it out of the way."
        ) from error
    with held, closing(store):
        waiting = store.requeue()
        if waiting:
            _log.info("%d job(s) were cut short and will run again", waiting)
        runner = Runner(settings, store, inputs)
        retention = Retention(settings, store, inputs, runner.files)
        yield Parts(settings, store, inputs, runner, Lease.of(settings), retention)


def listen(settings: Settings) -> socket.socket:
    """The listening socket that the settings ask for; raises `SettingsError`."""
    try:
        if settings.socket_fd is not None:
            listening = socket.socket(fileno=settings.socket_fd)
            _check_open_to(str(listening.getsockname()[0]), settings)
        else:
            found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
            family, kind, _, _, address = found[0]
            _check_open_to(str(address[0]), settings)
            listening = socket.socket(family, kind)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        listening.listen(BACKLOG)
    except (OSError, ValueError) as error:
        if settings.socket_fd is not None:
            raise SettingsError(
                f"socket_fd: descriptor {settings.socket_fd} is no TCP socket: {error}."
            ) from error
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error}. Choose another."
        ) from error
    return listening


def _check_open_to(host: str, settings: Settings) -> None:
    """Raise `SettingsError` if strangers could reach ``host`` and no token keeps them out."""
    if settings.token is None and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise SettingsError(
            f"host: without a token nobody beyond this machine may be served, so {host} is"
            f" refused. Set {ENV_PREFIX}TOKEN, or listen on 127.0.0.1."
        )


async def _serve(parts: Parts, listening: socket.socket, context: ssl.SSLContext | None) -> None:
    app = create_app(parts.settings.token, parts.lease)
    attach(app, parts)
    parts.runner.metrics.add(partial(present, parts))
    server = _Server(
        uvicorn.Config(
            app,
            http=limited_protocol(parts.settings),
            h11_max_incomplete_event_size=parts.settings.header_limit,
            timeout_keep_alive=parts.settings.keep_alive,
            access_log=False,
            log_config=None,
            lifespan="off",
            ws="none",
            server_header=False,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if context is None else "https"
    label = parts.settings.label or "(no label)"
    _log.info("worker %s on %s://%s:%d", label, scheme, shown, port)
    async with anyio.create_task_group() as group:
        group.start_soon(_end_at_signal, server, parts)
        group.start_soon(parts.runner.run)
        group.start_soon(parts.retention.run)
        group.start_soon(parts.runner.webhooks.run)
        group.start_soon(_end_when_over, server, parts)
        await server.serve(sockets=[listening])
        group.cancel_scope.cancel()


async def _end_at_signal(server: uvicorn.Server, parts: Parts) -> None:
    """End in good order at the first signal, and at once at the second."""
    ending = False
    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                if ending:
                    server.force_exit = server.should_exit = True
                else:
                    ending = True
                    group.start_soon(_drain, server, parts)


async def _drain(server: uvicorn.Server, parts: Parts) -> None:
    """Take no more work, let what is under way end within the limit, and end."""
    parts.lease.close("it was told to stop")
    with anyio.move_on_after(parts.settings.drain_seconds):
        await parts.runner.drain()
        while parts.lease.transfers:  # noqa: ASYNC110 (a count tells nobody)
            await anyio.sleep(_LOOK_S)
        await parts.runner.webhooks.sent()
    server.should_exit = True


async def _end_when_over(server: _Server, parts: Parts) -> None:
    """End the machine, or where there is none to end this process, when its time is over."""
    reason = await parts.lease.over(partial(doing, parts.store))
    _log.warning("ending this worker: %s", reason)
    machine = find_machine(parts.settings)
    if machine is not None:
        await end_machine(machine)
    server.should_exit = True
