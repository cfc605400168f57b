"""The worker's HTTP application: the routes, who may call them, and how errors leave."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from pydantic import SecretStr

from stemserve.auth import BearerAuth, LocalOnly
from stemserve.browsers import NoSniffing
from stemserve.lease import CountTransfers, Lease
from stemserve.limits import RequestLimit
from stemserve.problems import declared, handle_problems
from stemserve.routes import inputs, jobs, page, results, segments, worker
from stemserve.schema import Problem
from stemserve.settings import split_tokens


def create_app(token: SecretStr | None, lease: Lease | None = None) -> FastAPI:
    """The application; ``attach`` gives it the worker that it serves.

    Args:
        lease: Is told of uploads and downloads.
        token: What callers must send, or several of which each will do; None serves everybody.
    """
    app = FastAPI(
        title="stemserve",
        version=version("stemfleet"),
        description="Separates songs into stems.",
        docs_url=None,
        redoc_url=None,
    )
    handle_problems(app)
    app.include_router(page.router)
    app.include_router(worker.open_router)
    guarded = [] if token is None else [Security(HTTPBearer(auto_error=False))]
    refusals = declared(422) if token is None else declared(401, 422)
    for module in (worker, inputs, jobs, segments, results):
        app.include_router(module.router, dependencies=guarded, responses=refusals)
    app.add_middleware(RequestLimit)
    if lease is not None:
        app.add_middleware(CountTransfers, lease=lease)
    if token is None:
        app.add_middleware(LocalOnly)
    else:
        app.add_middleware(BearerAuth, tokens=split_tokens(token))
    app.add_middleware(NoSniffing)
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put `Problem` where `declared` refers to it."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas[Problem.__name__] = Problem.model_json_schema()
        return document

    app.openapi = openapi  # type: ignore[method-assign]
