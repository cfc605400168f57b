"""Whether a worker may use weights that nobody has granted a licence for.

``STEMSERVE_LICENCE=granted`` says no. Then every preset that needs such weights is refused, by name
of the file and its terms. Without it the terms are shown, and what to make of them is the user's
decision.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from stemserve.errors import SettingsError
from stemserve.weights.files import WeightFile
from stemserve.weights.policy import LICENCE_VARIABLE, LicencePolicy


def policy() -> LicencePolicy:
    """What the environment says; raises `SettingsError` if it says neither."""
    said = os.environ.get(LICENCE_VARIABLE) or LicencePolicy.ANY
    try:
        return LicencePolicy(said)
    except ValueError:
        raise SettingsError(f"{LICENCE_VARIABLE}: {said!r} is neither any nor granted.") from None


def refused(files: Iterable[WeightFile], policy: LicencePolicy) -> str | None:
    """Why weights are refused, naming each that carries no grant; None when none is refused."""
    if policy is LicencePolicy.ANY:
        return None
    ungranted = [file for file in files if not file.licence.granted]
    if not ungranted:
        return None
    named = "; ".join(f"{file.published} ({file.licence.name})" for file in ungranted)
    return f"uses weights that nobody has granted a licence for, and is told not to: {named}"
