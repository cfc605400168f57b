"""Inputs that lie in S3, or in what speaks its language: listed here, fetched by the workers.

A worker gets a presigned URL, so that the sound does not pass through this machine and the keys do
not leave it. Such a URL is a secret while it lasts: it is made when a job is posted, and neither
stored nor shown; what people and records see is ``s3://bucket/key``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from stemctl.errors import InputError

SCHEME = "s3://"
LASTS_S = 24 * 3600
"""A worker may have hours of sound to compute before it fetches."""


def object_name(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``.

    Raises:
        InputError: there is no bucket.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise InputError(f"{url}: give s3://bucket/key")
    return bucket, key


def sign(url: str) -> str:
    """A URL by which the object can be had without keys; may ask for temporary ones.

    Raises:
        InputError: there are no keys.
    """
    bucket, key = object_name(url)
    with _told(url):
        return str(
            _client().generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=LASTS_S
            )
        )


def list_objects(url: str) -> Iterator[tuple[str, int]]:
    """Key and size of every object whose key begins as the URL's.

    Raises:
        InputError: there are no keys, no such bucket, or it may not be listed.
    """
    bucket, prefix = object_name(url)
    with _told(url):
        pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for entry in page.get("Contents", ()):
                yield str(entry["Key"]), int(entry["Size"])


@cache
def _client() -> Any:  # noqa: ANN401 (boto3 makes its classes as it runs)
    """Told by the usual variables and files, AWS_ENDPOINT_URL and profiles among them."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise InputError("s3:// needs boto3: pip install 'stemfleet[s3]'") from None
    config = Config(
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    return boto3.Session().client("s3", config=config)


@contextmanager
def _told(url: str) -> Iterator[None]:
    _client()  # tells first, if there is no boto3
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        raise InputError(
            f"{url}: there are no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        ) from None
    except (BotoCoreError, ClientError) as error:
        raise InputError(f"{url}: {error}") from None
