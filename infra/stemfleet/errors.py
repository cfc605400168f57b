"""What a user can mend, as he shall see it in `pulumi up`: a sentence, never a traceback."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from stemfleet.clouds.base import CloudError

P = ParamSpec("P")
R = TypeVar("R")


class FleetError(Exception):
    """The fleet is not as declared. The message names the slot, the reason and the next step."""


def shown_plainly(method: Callable[P, R]) -> Callable[P, R]:
    """Let a provider's method end in a message where the cause is known.

    The dynamic provider server sends `traceback.format_exc()` to the user, whatever was raised.
    ``sys.tracebacklimit`` is what the standard library offers to leave the frames out; an error
    that nobody foresaw keeps them.
    """

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except (CloudError, FleetError) as error:
            sys.tracebacklimit = 0
            raise FleetError(str(error)) from None
        except Exception:
            sys.tracebacklimit = 1000
            raise

    return wrapped
