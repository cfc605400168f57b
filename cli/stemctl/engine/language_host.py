"""Pulumi's Python language host, for engines that were built from source.

The engine asks a process of this name to run the program. The official host is a Go program that
is published only inside the official installation; its server half is in the Python SDK, and this
puts the two ends together. It stands alone: it is copied beside the engine, and needs of the
environment that runs it only the `pulumi` package.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from concurrent import futures
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

MESSAGE_BYTES = 400 * 1024 * 1024
"""The engine's own limit for one message; gRPC's default of 4 MiB is too small for its requests."""


class LanguageHost(LanguageServer):
    """Runs the program at the place where the engine says that it is."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def Handshake(self, request: Any, context: Any) -> Any:
        """The engine introduces itself; nothing of it is needed."""
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        """The version of the SDK, which is what runs the program."""
        return plugin_pb2.PluginInfo(version=version("pulumi"))

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        """For `pulumi about`; the program's packages are in uv.lock."""
        return language_pb2.GetProgramDependenciesResponse()

    def Run(self, request: Any, context: Any) -> Any:
        """Run the program once, as `python PROGRAM` would, in its directory."""
        directory = request.info.program_directory or request.pwd
        entry = Path(directory, request.info.entry_point or request.program or ".")

        def program() -> None:
            if directory not in sys.path:
                sys.path.insert(0, directory)
            runpy.run_path(str(entry), run_name="__main__")

        os.chdir(directory)
        self.program = program
        result = super().Run(request, context)  # type: ignore[no-untyped-call]
        # What went wrong has been shown by then; the engine would show an error a second time.
        return language_pb2.RunResponse(bail=True) if result.error else result


def main() -> None:
    """Serve on a free loopback port, say which on standard output, end when the engine says so."""
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=4),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
        ],
    )
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageHost(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    # The engine ends its hosts with SIGINT, a terminal sends it to the whole group: neither is an
    # error that should show a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
