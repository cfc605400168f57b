"""What the worker calls: a caller's own server. None of it is served here."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header

from stemserve.schema import Job

router = APIRouter(tags=["jobs"])


@router.post(
    "job",
    status_code=204,
    response_description="Heard",
    responses={
        "4XX": {"description": "Told again; 410: not told again"},
        "5XX": {"description": "Told again"},
    },
)
def job_is_over(
    body: Job,
    webhook_id: Annotated[str, Header(description="The same for each try")],
    webhook_timestamp: Annotated[int, Header(description="Of this try, in seconds since 1970")],
    webhook_signature: Annotated[
        str,
        Header(
            description="v1, and in base64 the HMAC-SHA256 of `id.timestamp.body`; of several "
            "keys, with spaces between them"
        ),
    ],
) -> None:
    """A job is over: what is posted to its `webhook_url`, up to 8 times within three hours.

    Every answer of 2xx is one of having heard; 410 asks for no more of it. Redirects are not
    followed.
    """
