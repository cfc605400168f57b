"""What a provider's error looks like to the user, as the provider server formats it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import traceback
from stemfleet.clouds.base import NoCapacityError
from stemfleet.errors import shown_plainly

@shown_plainly
def call(error):
    try:
        raise OSError("a detail from below")
    except OSError:
        raise error

for error in (NoCapacityError("nothing is free; ask for less"), ZeroDivisionError("a mistake")) * 2:
    try:
        call(error)
    except Exception:
        print(traceback.format_exc(), end="---")
"""


def test_what_a_user_can_mend_is_a_sentence_and_a_mistake_of_ours_keeps_its_frames() -> None:
    # In a process of its own, as it changes how all tracebacks of a process look.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60
    )
    plain, full, plain_again, full_again, _ = done.stdout.split("---")
    assert plain == plain_again == "stemfleet.errors.FleetError: nothing is free; ask for less\n"
    for text in (full, full_again):
        assert "Traceback" in text
        assert ", in call" in text
        assert "ZeroDivisionError: a mistake" in text
