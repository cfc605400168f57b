"""The label that is a slot's identity."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stemfleet.clouds.base import GpuFilter
from stemfleet.clouds.label import LabelParts, parse_label, slot_label, stack_prefix

parts = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
slots = st.from_regex(r"[a-z][a-z0-9]{0,6}-[0-9]{1,3}", fullmatch=True)
TOKEN = "0123456789abcdef"
FILTER = GpuFilter(names=("RTX 4090",), count=1, vram_gb=8.0, max_usd_per_hour=0.5)


def label(**changed: object) -> str:
    """A label of which some things are other than usual."""
    usual: dict[str, object] = {
        "slot": "dev-0", "preset": "center", "image": None, "want": FILTER, "token": TOKEN,
    }  # fmt: skip
    return slot_label("p.s.", **{**usual, **changed})  # type: ignore[arg-type]


@given(parts, parts, slots)
def test_a_label_has_four_parts_and_is_one_plain_file_name(
    project: str, stack: str, slot: str
) -> None:
    made = slot_label(
        stack_prefix(project, stack),
        slot,
        preset="center",
        image=None,
        want=FILTER,
        token=TOKEN,
    )
    assert re.fullmatch(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[a-z0-9-]+\.[0-9a-f]{14}", made)
    assert made.split(".")[:3] == [project, stack, slot]
    assert parse_label(made) == LabelParts(project, stack, slot, "012345")
    for other in (made[:-1], f"{made}0", f"x.{made}", made.replace("-", "", 1), made.upper()):
        assert parse_label(other) is None or parse_label(other) != LabelParts(
            project, stack, slot, "012345"
        )


@pytest.mark.parametrize("label", ["", "notebook", "a.b.c-0", "stemfleet.dev.gpu-0.0A1B2C3D4E5F60"])
def test_a_machine_of_another_kind_is_none_of_ours(label: str) -> None:
    assert parse_label(label) is None


@given(st.tuples(parts, parts), st.tuples(parts, parts), slots)
def test_no_stack_takes_anothers_slots_for_its_own(
    ours: tuple[str, str], theirs: tuple[str, str], slot: str
) -> None:
    made = slot_label(
        stack_prefix(*theirs), slot, preset="center", image=None, want=FILTER, token=TOKEN
    )
    assert made.startswith(stack_prefix(*ours)) == (ours == theirs)


@pytest.mark.parametrize("name", ["a.b", "", "a/b", "a b", "x" * 65, "é"])
def test_a_stack_that_cannot_be_in_a_label_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a label"):
        stack_prefix("stemfleet", name)


@pytest.mark.parametrize(
    "changed",
    [
        {"preset": "htdemucs"},
        {"image": "ghcr.io/x"},
        {"token": "0123457777777777"},
        {"certificate": "g"},
        {"idle_minutes": 15.0},
        {"lease_hours": 15.0},
        {"want": replace(FILTER, names=("RTX 3090",))},
        {"want": replace(FILTER, count=2)},
        {"want": replace(FILTER, vram_gb=24.0)},
    ],
)
def test_what_cannot_change_in_place_changes_the_label(changed: dict[str, object]) -> None:
    assert label(**changed) != label()


def test_a_price_cap_changes_no_label() -> None:
    assert label(want=replace(FILTER, max_usd_per_hour=None)) == label()
