"""A provider in place of pulumi-command's, whose binary comes from the internet: local Commands.

It runs ``create`` in a shell, and takes what was printed for ``stdout``; another of the triggers
replaces, any other change runs the command again. That is what its documentation says of the
original, as far as this project uses it.
"""

# ruff: noqa: N802, ANN401 - the names and types are the protocol's

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from concurrent import futures
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.json_format import MessageToDict
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

TYPE = "command:local:Command"


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The calls that the engine makes; all others are answered by UNIMPLEMENTED."""

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="1.2.1")

    def Configure(self, request: Any, context: Any) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=False)

    def Check(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: Any) -> Any:
        olds, news = MessageToDict(request.olds), MessageToDict(request.news)
        changed = [key for key in news if news[key] != olds.get(key)]
        kinds = provider_pb2.DiffResponse
        return provider_pb2.DiffResponse(
            changes=kinds.DIFF_SOME if changed else kinds.DIFF_NONE,
            replaces=[key for key in changed if key == "triggers"],
        )

    def Create(self, request: Any, context: Any) -> Any:
        outputs = self._run(request.properties, context)
        return provider_pb2.CreateResponse(id=uuid.uuid4().hex, properties=outputs)

    def Update(self, request: Any, context: Any) -> Any:
        return provider_pb2.UpdateResponse(properties=self._run(request.news, context))

    def Delete(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def _run(self, properties: Any, context: Any) -> struct_pb2.Struct:
        inputs = MessageToDict(properties)
        done = subprocess.run(
            ["/bin/sh", "-c", inputs["create"]],
            env={**os.environ, **inputs.get("environment", {})},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            context.abort(grpc.StatusCode.UNKNOWN, f"exit status {done.returncode}: {done.stderr}")
        outputs = struct_pb2.Struct()
        outputs.update({**inputs, "stdout": done.stdout.strip(), "stderr": done.stderr.strip()})
        return outputs


def main() -> None:
    """Serve until the engine ends it; print the port, as the engine expects."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
