"""Every setting of a worker, in one place: from the environment, and from flags above it.

The variable of a setting is its name in capitals behind ``STEMSERVE_``: ``STEMSERVE_QUEUE_LIMIT``.
Flags of ``stemserve serve`` win over the environment. Secrets have no flag, for every process of
a machine may read the command lines of the others. The separation process inherits the
environment, less what is secret in it, and is given ``STEMSERVE_LICENCE``. It reads some
variables that are no settings: ``STEMSERVE_WEIGHTS``, the directory of the networks' weights
(`stemserve.weights.files`), and how networks run (`stemserve.separation.running`).
"""

from __future__ import annotations

import base64
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Self

import platformdirs
from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stemserve.errors import SettingsError
from stemserve.schema import PORT, PresetName
from stemserve.weights.policy import LicencePolicy

ENV_PREFIX = "STEMSERVE_"
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


def is_secret(variable: str) -> bool:
    """Whether a variable, by its name, is kept from the separation process.

    That decodes what strangers send. It needs none of the worker's own secrets, nor the key that a
    rented machine is given to itself, nor what else a machine's environment may hold.
    """
    return _SECRET.search(variable) is not None


def split_tokens(text: SecretStr) -> list[str]:
    """The tokens in a text that holds several."""
    return [token for token in re.split(r"[,\s]+", text.get_secret_value()) if token]


PREFIX_OF_BASE64 = "whsec_"
"""Before a secret that is written in base64, as the Standard Webhooks have it."""


class LogFormat(StrEnum):
    """How the worker's log is written."""

    TEXT = "text"
    JSON = "json"


class Settings(BaseSettings):
    """A worker's settings. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid"
    )

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(PORT, ge=0, le=65535, description="Port to listen on; 0: any free one")
    socket_fd: int | None = Field(
        None, ge=0, description="An already listening TCP socket; host and port are then its own"
    )
    token: SecretStr | None = Field(
        None,
        description="What callers must send as bearer token; needed beyond loopback. Of several,"
        " with commas or spaces between them, each is good: so one is replaced without a pause",
    )
    log: LogFormat = Field(
        LogFormat.TEXT, description="Lines for people, or one JSON object on each: json"
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="What webhooks are signed with: whsec_ and base64, or any text; else a key"
        " that is derived from the token",
    )
    tls_cert: str | None = Field(
        None, description="A certificate as PEM text, to serve HTTPS with; needs tls_key"
    )
    tls_key: SecretStr | None = Field(None, description="The certificate's key as PEM text")
    data_dir: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("stemserve", appauthor=False),
        description="Where jobs, inputs and results are kept",
    )
    label: str = Field("", description="The worker's name, for people and process lists")
    preset: PresetName = Field("center", description="The preset of a job that names none")
    queue_limit: int = Field(16, ge=1, le=100_000, description="Jobs that may wait")
    caller_queue_limit: int | None = Field(
        None,
        ge=1,
        description="Jobs of one caller that may wait: of a token, or without tokens of an address;"
        " default: as many as of all",
    )
    licence: LicencePolicy = Field(
        LicencePolicy.ANY, description="Refuse presets whose weights carry no grant: granted"
    )
    strict: bool = Field(
        False,
        description="Fail over damaged inputs, for jobs that do not say; else take what can"
        " be decoded, with silence in place of the rest",
    )

    connection_limit: int = Field(512, ge=1, description="Connections at one time")
    keep_alive: int = Field(5, ge=0, description="A connection without a request is closed after")
    header_limit: int = Field(2**15, ge=2**10, description="A request's address and headers")
    header_timeout: float = Field(20, gt=0, description="They have come by then")
    body_limit: int = Field(2**18, ge=1, description="A request's body, uploads aside")
    body_timeout: float = Field(30, gt=0, description="It has come by then")
    download_stall: float = Field(
        120, gt=0, description="A download is cut when the caller takes nothing for longer"
    )

    input_limit: int = Field(4 * 2**30, ge=1, description="The largest input that is taken")
    keep_free: int = Field(
        256 * 2**20, ge=0, description="No input is taken that would leave the disk less than this"
    )
    upload_stall: float = Field(60, gt=0, description="An upload that pauses longer is dropped")
    upload_rate: int = Field(
        2**12, ge=0, description="So is one that brings fewer bytes a second for that long"
    )
    duration_limit: float = Field(12 * 3600, gt=0, description="The longest track that is taken")
    channel_limit: int = Field(16, ge=1, description="The most channels that a track may have")
    keep_days: float | None = Field(
        30,
        gt=0,
        description="Inputs and results that nobody has used for so many days, of those in which"
        " the worker ran, are removed",
    )
    keep_bytes: int | None = Field(
        None, ge=0, description="So many of them are kept; what was not used for longest goes first"
    )
    keep_least_minutes: float = Field(
        60, ge=0, description="What was used since stays, whatever room is wanted"
    )
    fetch_timeout: float = Field(
        3600, gt=0, description="The longest download of an input_url, or delivery of a result"
    )
    fetch_private: bool = Field(
        False, description="Also fetch an input_url from private and loopback addresses"
    )
    fetch_allowed: tuple[IPvAnyNetwork, ...] = Field(
        (),
        description="Private networks that an input_url may lead to, as a storage of one's own"
        ' (in the environment: a JSON list, ["10.1.2.0/24"])',
    )

    idle_minutes: float | None = Field(
        None, gt=0, description="The worker ends its machine after so long without work"
    )
    lease_hours: float | None = Field(
        None,
        gt=0,
        description="The worker ends its machine so long after its start, or after the last time"
        " that a job got further or a caller renewed the lease",
    )
    vast_url: str = Field(
        "https://console.vast.ai", description="Where a machine of Vast.ai ends itself"
    )
    runpod_url: str = Field(
        "https://api.runpod.io", description="Where a machine of RunPod ends itself"
    )

    drain_seconds: float = Field(
        0,
        ge=0,
        description="What runs, and downloads, get so long to end after SIGTERM; no job is begun"
        " then. What does not end goes on behind its last finished segment at the next start",
    )
    separation_command: tuple[str, ...] = Field(
        (sys.executable, "-m", "stemserve.separation"),
        min_length=1,
        description="Starts the separation process (in the environment: a JSON list);"
        " put nice, numactl and the like before it",
    )
    start_timeout: float = Field(300, gt=0, description="The separation process is up by then")
    stall_timeout: float = Field(1800, gt=0, description="It is restarted when silent for longer")

    @field_validator("token")
    @classmethod
    def _holds_a_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not split_tokens(token):
            raise ValueError("there is no token in it")
        return token

    @field_validator("webhook_secret")
    @classmethod
    def _is_base64(cls, secret: SecretStr | None) -> SecretStr | None:
        text = "" if secret is None else secret.get_secret_value()
        if text.startswith(PREFIX_OF_BASE64):
            try:
                base64.b64decode(text.removeprefix(PREFIX_OF_BASE64), validate=True)
            except ValueError:
                raise ValueError(f"what stands behind {PREFIX_OF_BASE64} is no base64") from None
        return secret

    def secrets(self) -> list[str]:
        """What must not be seen anywhere."""
        tokens = [] if self.token is None else split_tokens(self.token)
        others = [self.tls_key, self.webhook_secret]
        return [*tokens, *(other.get_secret_value() for other in others if other is not None)]

    @classmethod
    def load(cls, **flags: object) -> Self:
        """The settings of the environment, with the flags that are not None above them.

        Raises:
            SettingsError: a setting has no usable value. No value is quoted: one is a secret.
        """
        given = {name: value for name, value in flags.items() if value is not None}
        try:
            return cls.model_validate(cls(**given))  # type: ignore[arg-type]
        except ValidationError as error:
            lines = [
                f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
            raise SettingsError(
                f"{'; '.join(lines)}. Correct the flag or the {ENV_PREFIX}… variable of that name."
            ) from None
