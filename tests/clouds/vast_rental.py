"""What the emulated Vast.ai takes and what it refuses: its errors, and the form of a rental."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]

RENT_KEYS = {
    "client_id",
    "image",
    "env",
    "price",
    "disk",
    "label",
    "extra",
    "onstart",
    "image_login",
    "python_utf8",
    "lang_utf8",
    "use_jupyter_lab",
    "jupyter_dir",
    "force",
    "cancel_unavail",
    "template_hash_id",
    "user",
    "runtype",
    "args",
    "volume_info",
    "target_state",
}


class ApiError(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, error: str, message: str, **more: int) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"success": False, "error": error, "msg": message, **more}


class TooManyError(Exception):
    """The real API answers this one in plain text."""


def no_such_ask(id_: str) -> ApiError:
    """What the real API says of an offer that is gone: a 404 within a 400."""
    return ApiError(
        400,
        "invalid_args",
        f"error 404/3603: no_such_ask Instance type by id {id_} is not available",
    )


def check_rental(body: Json) -> None:
    """Pass if the real API would take it.

    Raises:
        ApiError: it would not.
    """

    def demand(met: bool, message: str, error: str = "invalid_args") -> None:
        if not met:
            raise ApiError(400, error, message)

    demand(not set(body) - RENT_KEYS, f"unknown keys {sorted(set(body) - RENT_KEYS)}")
    demand(body.get("client_id") == "me", "client_id must be 'me'")
    image, label = body.get("image"), body.get("label") or ""
    demand(isinstance(image, str) and 0 < len(image) <= 1024, "image: 1 to 1024 characters")
    demand(len(label) <= 256, "label: at most 256 characters", "label_too_long")
    environment = body.get("env")
    demand(isinstance(environment, dict), "invalid env type: env must be a dict")
    assert isinstance(environment, dict)
    demand(all(isinstance(v, str) for v in environment.values()), "env: values must be texts")
    size = sum(len(name) + len(value) for name, value in environment.items())
    demand(size <= 32_768, "env: at most 32768 bytes")
    for name in environment:
        port = re.fullmatch(r"-p (\d+):(\d+)(/tcp|/udp)?", name)
        demand(bool(port) or re.fullmatch(r"[A-Za-z_]\w*", name) is not None, f"env: {name!r}")
    demand(isinstance(body.get("disk"), int | float) and body["disk"] >= 8, "disk: at least 8 GB")
    price = body.get("price")
    demand(price is None or 0.001 <= price <= 128, "0.001 to 128", "invalid_price")
    demand(body.get("runtype") in (None, "args", "ssh_proxy", "ssh_direc ssh_proxy"), "runtype")
    arguments = body.get("args")
    demand(
        arguments is None
        or (isinstance(arguments, list) and all(isinstance(one, str) for one in arguments)),
        "args must be a list of texts",
    )
    demand(len(" ".join(arguments or [])) + len(body.get("onstart") or "") <= 4096, "args too long")


def json_object(value: object) -> Json:
    """The value, which has to be an object."""
    if not isinstance(value, dict):
        raise ApiError(400, "invalid_args", "expected a JSON object")
    return value
