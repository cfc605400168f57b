"""The stack's own identity: the bearer token that its workers demand and its clients send."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, ResourceProvider


class IdentityProvider(ResourceProvider):
    """Makes a token once. It stays until the resource is replaced."""

    serialize_as_secret_always = False

    def diff(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> DiffResult:
        """Nothing changes a token but its replacement."""
        return DiffResult(changes=False)

    def create(self, props: dict[str, Any]) -> CreateResult:
        """256 random bits, and a fingerprint that may be shown and stored."""
        token = secrets.token_urlsafe(32)
        fingerprint = hashlib.sha256(token.encode()).hexdigest()[:16]
        return CreateResult(fingerprint, {"token": token, "fingerprint": fingerprint})


class Identity(Resource, module="stemfleet", name="Identity"):
    """Outputs: ``token`` (secret) and ``fingerprint``, which changes with the token."""

    token: pulumi.Output[str]
    fingerprint: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            IdentityProvider(),
            name,
            {"token": None, "fingerprint": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["token"])
            ),
        )
