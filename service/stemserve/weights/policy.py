"""Which weights a worker may use, as a setting; imports nothing, for every start reads it."""

from __future__ import annotations

from enum import StrEnum

LICENCE_VARIABLE = "STEMSERVE_LICENCE"


class LicencePolicy(StrEnum):
    """``granted``: presets whose weights carry no grant are refused."""

    ANY = "any"
    GRANTED = "granted"
