"""Wrong names are found before anything is sent, and the nearest are told."""

from __future__ import annotations

import pytest
from stemctl.asked.wanted import choose_stems, find_preset
from stemctl.asked.wishes import check_format
from stemctl.errors import InputError
from stemserve.schema import BitDepth, Preset, Status, StemFormat

STEMS = ["vocals", "instrumental", "drums", "bass", "other"]
CENTER = Preset(name="center", description="", stems=STEMS, available=True)
LACKS = "needs torch: pip install 'stemfleet[image]'"
NETWORK = Preset(name="htdemucs", description="", stems=STEMS, available=False, lacks=LACKS)


def status(*presets: Preset) -> Status:
    return Status(
        models_ready=True,
        active_jobs=0,
        completed_jobs=0,
        uptime_seconds=0,
        pending_jobs=0,
        queue_limit=1,
        version="1",
        device="cpu",
        default_preset="center",
        presets=list(presets),
    )


@pytest.mark.parametrize(
    ("name", "depth", "held"),
    [
        ("wav", None, BitDepth.F32),
        ("wav", "24", BitDepth.B24),
        ("flac", None, BitDepth.B16),
        ("mp3", None, None),
        ("opus", None, None),
        ("stem.mp4", None, None),
    ],
)
def test_formats_have_default_depths(name: str, depth: str | None, held: BitDepth | None) -> None:
    assert check_format(name, depth) == (StemFormat(name), held)


@pytest.mark.parametrize(
    ("name", "depth", "message"),
    [
        ("flak", None, r"did you mean flac\?.*wav, flac, mp3, opus, m4a, stem.mp4"),
        ("flac", "32f", "16 or 24"),
        ("mp3", "16", "no bit depth"),
        ("wav", "17", "16 or 24 or 32f"),
    ],
)
def test_formats_that_are_none_say_what_there_is(
    name: str, depth: str | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_format(name, depth)


def test_a_preset_is_served_by_the_workers_that_can() -> None:
    able = NETWORK.model_copy(update={"available": True, "lacks": None})
    statuses = {"a": status(CENTER, NETWORK), "b": status(CENTER, able), "c": status(CENTER)}
    preset, lacking = find_preset("htdemucs", statuses)
    assert preset == able
    assert lacking == {"a": f"htdemucs: {LACKS}", "c": "has no preset htdemucs"}
    assert find_preset(None, statuses) == (CENTER, {})


def test_a_preset_that_no_worker_can_serve_says_what_it_lacks() -> None:
    with pytest.raises(InputError, match="no worker can serve preset htdemucs: needs torch"):
        find_preset("htdemucs", {"a": status(CENTER, NETWORK)})


def test_an_unknown_preset_and_stem_name_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no preset centre: did you mean center\?"):
        find_preset("centre", {"a": status(CENTER, NETWORK)})
    with pytest.raises(InputError, match=r"no stem in preset center vocal: did you mean vocals\?"):
        choose_stems(CENTER, ["vocal"])


def test_stems_are_in_the_presets_order() -> None:
    assert choose_stems(CENTER, ["drums", "vocals", "drums"]) == ("vocals", "drums")
    assert choose_stems(CENTER, []) == ("vocals", "instrumental")
    assert choose_stems(CENTER, ["all"]) == tuple(STEMS)
    assert choose_stems(CENTER, ["no_bass", "drums"]) == ("drums", "no_bass")
    only = CENTER.model_copy(update={"stems": ["guitar", "rest"]})
    assert choose_stems(only, []) == ("guitar", "rest")


def test_a_stem_file_holds_its_four_stems() -> None:
    four = ("vocals", "drums", "bass", "other")
    assert choose_stems(CENTER, [], StemFormat.STEM_MP4) == four
    assert choose_stems(CENTER, ["all"], StemFormat.STEM_MP4) == four
    with pytest.raises(InputError, match="leave out --stems"):
        choose_stems(CENTER, ["vocals"], StemFormat.STEM_MP4)
