"""The worker's HTTP application: the routes, who may call them, and how errors leave."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from pydantic import SecretStr

from stemserve.errors import RequestError
from stemserve.lease import CountTransfers, Lease
from stemserve.problems import declared, handle_problems
from stemserve.routes import (
    events,
    inputs,
    jobs,
    metrics,
    page,
    results,
    segments,
    webhooks,
    worker,
)
from stemserve.settings import split_tokens
from stemserve.web.auth import BearerAuth, LocalOnly
from stemserve.web.browsers import NoSniffing
from stemserve.web.calls import WatchCalls
from stemserve.web.limits import RequestLimit
from stemserve.web.openapi import DESCRIPTION, TAGS, WHO_IS_SERVED, complete


def create_app(token: SecretStr | None, lease: Lease | None = None) -> FastAPI:
    """The application; ``attach`` gives it the worker that it serves.

    Args:
        lease: Is told of uploads and downloads.
        token: What callers must send, or several of which each will do; None serves everybody.
    """
    app = FastAPI(
        title="stemserve",
        version=version("stemfleet"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
    )
    handle_problems(app)
    app.include_router(page.router)
    app.include_router(worker.open_router)
    asked = HTTPBearer(auto_error=False, description=WHO_IS_SERVED)
    guarded = [] if token is None else [Security(asked)]
    for module in (worker, metrics, inputs, jobs, events, segments, results):
        app.include_router(module.router, dependencies=guarded, responses=declared(RequestError))
    app.webhooks.include_router(webhooks.router)
    app.add_middleware(RequestLimit)
    if lease is not None:
        app.add_middleware(CountTransfers, lease=lease)
    if token is None:
        app.add_middleware(LocalOnly)
    else:
        app.add_middleware(BearerAuth, tokens=split_tokens(token))
    app.add_middleware(NoSniffing)
    app.add_middleware(WatchCalls)
    app.openapi = complete(app.openapi, guarded=token is not None)  # type: ignore[method-assign]
    return app
