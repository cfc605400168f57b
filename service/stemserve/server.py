"""Serves the application on a socket, beside the runner, until a signal ends both."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import uvicorn

from stemserve.app import create_app
from stemserve.errors import SettingsError
from stemserve.files import lock
from stemserve.inputs import Inputs
from stemserve.routes.parts import Parts, attach
from stemserve.runner import Runner
from stemserve.settings import ENV_PREFIX, Settings
from stemserve.store import Store

BACKLOG = 128
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
    listening = listen(settings)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = lock(settings.data_dir / "worker.lock")
    except OSError as error:
        raise SettingsError(
            f"data_dir: {error}. Choose a folder that can be written to."
        ) from error
    if held is None:
        raise SettingsError(
            f"data_dir: another worker runs on {settings.data_dir}. Give each one its own."
        )
    with held, listening:
        store = Store(settings.data_dir / "jobs.sqlite3")
        waiting = store.requeue()
        if waiting:
            _log.info("%d job(s) were cut short and will run again", waiting)
        inputs = Inputs(settings.data_dir / "inputs", settings.input_limit, settings.keep_free)
        parts = Parts(settings, store, inputs, Runner(settings, store, inputs))
        try:
            anyio.run(_serve, parts, listening)
        finally:
            store.close()


def listen(settings: Settings) -> socket.socket:
    """The listening socket that the settings ask for; raises `SettingsError`."""
    try:
        if settings.socket_fd is not None:
            listening = socket.socket(fileno=settings.socket_fd)
        else:
            family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
            listening = socket.socket(family, socket.SOCK_STREAM)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((settings.host, settings.port))
        host = str(listening.getsockname()[0])
        if settings.token is None and not ipaddress.ip_address(host).is_loopback:
            listening.close()
            raise SettingsError(
                f"host: without a token nobody beyond this machine may be served, so {host} is"
                f" refused. Set {ENV_PREFIX}TOKEN, or listen on 127.0.0.1."
            )
        listening.listen(BACKLOG)
    except (OSError, ValueError) as error:
        if settings.socket_fd is not None:
            raise SettingsError(
                f"socket_fd: descriptor {settings.socket_fd} is no TCP socket: {error}."
            ) from error
        raise SettingsError(
            f"cannot listen on {settings.host}:{settings.port}: {error}. Choose another port."
        ) from error
    return listening


async def _serve(parts: Parts, listening: socket.socket) -> None:
    app = create_app(parts.settings.token)
    attach(app, parts)
    server = _Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _log.info("worker %s on http://%s:%d", parts.settings.label or "(no label)", shown, port)
    async with anyio.create_task_group() as group:
        group.start_soon(_end_at_signal, server)
        group.start_soon(parts.runner.run)
        await server.serve(sockets=[listening])
        group.cancel_scope.cancel()


async def _end_at_signal(server: uvicorn.Server) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            server.force_exit = server.should_exit
            server.should_exit = True
