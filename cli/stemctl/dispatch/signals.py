"""Ctrl-C: once lets what is computing end, twice ends it too, three times waits for nothing."""

from __future__ import annotations

import signal

import anyio

from stemctl.dispatch.dispatch import Dispatch
from stemctl.dispatch.watch import Watcher


async def heed_signals(dispatch: Dispatch, watcher: Watcher) -> None:
    """Drain or stop a run on signals, until cancelled."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            first, dispatch.report.signal = dispatch.report.signal is None, number
            if first and number == signal.SIGINT:
                watcher.said("no new tracks; those that run will end. Ctrl-C again stops them too")
                await dispatch.drain()
            else:
                watcher.said("stopping: the jobs of this run are cancelled")
                dispatch.stop()
