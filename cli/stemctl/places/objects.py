"""Objects in S3, or in what speaks its language: listed here, fetched and put by the workers.

A worker gets a presigned URL, so that the sound does not pass through this machine and the keys do
not leave it. Such a URL is a secret while it lasts: it is made when it is needed, and neither
stored nor shown; what people and records see is ``s3://bucket/key``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from stemctl.errors import InputError

SCHEME = "s3://"
LASTS_S = 24 * 3600
"""A worker may have hours of sound to compute before it fetches."""
PUT_LASTS_S = 2 * 3600
"""It puts at once, and may be slow."""


@dataclass(frozen=True)
class Stored:
    """What a store says of an object."""

    size: int
    md5: str | None
    """None: it does not tell."""


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
    return _signed(url, "get_object", LASTS_S)


def sign_put(url: str) -> str:
    """A URL by which the object can be written without keys; raises as `sign` does."""
    return _signed(url, "put_object", PUT_LASTS_S)


def _signed(url: str, call: str, lasts: int) -> str:
    bucket, key = object_name(url)
    with _told(url):
        return str(
            _client().generate_presigned_url(
                call, Params={"Bucket": bucket, "Key": key}, ExpiresIn=lasts
            )
        )


def look_at_object(url: str) -> Stored | None:
    """What a store says of an object, None: that it is not there; raises `InputError`."""
    about = _of_object(url, "head_object")
    if about is None:
        return None
    # With keys of the store's own management, an ETag is no digest of the content.
    plain = "SSECustomerAlgorithm" not in about and "kms" not in about.get(
        "ServerSideEncryption", ""
    )
    md5 = re.fullmatch(r'"([0-9a-f]{32})"', about.get("ETag", ""))
    return Stored(int(about["ContentLength"]), md5[1] if md5 and plain else None)


def read_object(url: str) -> bytes | None:
    """A small object's content, None: it is not there; raises `InputError`."""
    answer = _of_object(url, "get_object")
    return None if answer is None else bytes(answer["Body"].read())


def write_object(url: str, content: bytes) -> None:
    """Put a small object; raises `InputError`."""
    _of_object(url, "put_object", Body=content, ContentType="application/json")


def remove_object(url: str) -> None:
    """Remove an object, if it is there; raises `InputError`."""
    _of_object(url, "delete_object")


def _of_object(url: str, call: str, **how: object) -> Any:  # noqa: ANN401 (boto3's own)
    """The answer to a call about one object; None: it is not there."""
    bucket, key = object_name(url)
    with _told(url):
        from botocore.exceptions import ClientError

        try:
            return getattr(_client(), call)(Bucket=bucket, Key=key, **how)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                return None
            raise


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
        max_pool_connections=32,
        # Not every store knows the checksums that AWS has added of late.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
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
