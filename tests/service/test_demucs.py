"""The Demucs presets, with random weights: the same numbers as the package's own, in a stream."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import BagOfModels, Model, apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.errors import PresetUnavailableError
from stemserve.separation.checkpoint import load_network
from stemserve.separation.presets import PRESETS, lacks
from stemserve.separation.separators import open_separator
from stemserve.separation.span import WHOLE, Span
from stemserve.task import Advanced, Failed, Finished

from tests.service.networks import FT, HT, MMI, SIX, SOURCES, make_checkpoint
from tests.service.separating import separation_process, task
from tests.service.sounds import read_audio, tones, write_audio

CLOSE = 1e-5

pytestmark = pytest.mark.usefixtures("one_thread")


def reference(network: HTDemucs | HDemucs | BagOfModels, sound: Block) -> dict[str, Block]:
    """What the package's own code makes of a whole track."""
    mix = torch.from_numpy(sound.T.copy())[None]
    with torch.no_grad():
        out = apply_model(network, mix, shifts=0, split=True, overlap=0.25)[0]
    return {name: out[number].numpy().T for number, name in enumerate(network.sources)}


def separated(
    preset: str,
    sound: Block,
    stems: Sequence[str],
    rate: int = 44100,
    block: int = 10_000,
    span: Span = WHOLE,
) -> dict[str, Block]:
    """Whole stems of a sound, fed in blocks."""
    blocks = (sound[at : at + block] for at in range(0, len(sound), block))
    parts = list(open_separator(PRESETS[preset])(blocks, rate, stems, span))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in stems}


@pytest.mark.parametrize(
    ("preset", "signature", "frames"),
    [("htdemucs", HT, frames) for frames in (1, 16_000, 22_050, 22_051, 40_000, 100_003)]
    + [("htdemucs_6s", SIX, 40_000)]
    + [("hdemucs_mmi", MMI, frames) for frames in (60_000, 132_301, 300_000)],
)
def test_the_stream_gives_what_the_whole_track_gives(
    weights: Path, preset: str, signature: str, frames: int
) -> None:
    network = make_checkpoint(weights, signature)
    sound = np.random.default_rng(0).normal(0, 0.1, (frames, 2)).astype(np.float32)
    ours = separated(preset, sound, [*network.sources, "instrumental"])
    for name, theirs in reference(network, sound).items():
        assert np.abs(theirs - ours[name]).max() < CLOSE
        assert ours[name].shape == sound.shape
    np.testing.assert_allclose(ours["vocals"] + ours["instrumental"], sound, atol=1e-6)


def test_each_network_of_the_bag_answers_for_its_own_source(weights: Path) -> None:
    networks: list[Model] = [
        make_checkpoint(weights, signature, seed=number)
        for number, signature in enumerate(FT.values())
    ]
    bag = BagOfModels(networks, np.eye(4).tolist())
    sound = tones(60_000)
    ours = separated("htdemucs_ft", sound, SOURCES)
    for name, theirs in reference(bag, sound).items():
        assert np.abs(theirs - ours[name]).max() < CLOSE


def test_only_the_networks_of_wanted_stems_are_read(weights: Path) -> None:
    for signature in FT.values():
        make_checkpoint(weights, signature)
    for path in weights.iterdir():
        if not path.name.startswith(FT["vocals"]):
            path.write_bytes(b"not what the name says")
    assert set(separated("htdemucs_ft", tones(5000), ["instrumental"])) == {"instrumental"}
    with pytest.raises(PresetUnavailableError, match="damaged"):
        separated("htdemucs_ft", tones(5000), ["drums"])


@pytest.mark.parametrize("rate", [8000, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_and_mono_keep_length_and_sum(weights: Path, rate: int, channels: int) -> None:
    make_checkpoint(weights, HT)
    sound = tones(rate + 7, channels, rate)
    stems = separated("htdemucs", sound, ["instrumental", "vocals"], rate)
    assert {stem.shape for stem in stems.values()} == {sound.shape}
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], sound, atol=1e-6)


def test_a_network_of_the_true_size(weights: Path) -> None:
    """42 million parameters, in half precision on disk: one window goes through and says much."""
    make_checkpoint(weights, HT, true_size=True)
    sound = tones(20_000)
    stems = separated("htdemucs", sound, SOURCES)
    for stem in stems.values():
        assert stem.shape == sound.shape
        assert np.isfinite(stem).all()
        assert np.abs(stem).max() > 0


class _Evil:
    """What it pickles to is a call of a function, here a harmless one."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.getenv, ("HOME",)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_refused_unopened(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "evil.th"
    if content is None:
        torch.save({"klass": HTDemucs, "args": (_Evil(),), "kwargs": {}, "state": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(PresetUnavailableError, match=r"evil\.th"):
        load_network(path)


def test_what_is_missing_is_named(weights: Path) -> None:
    said = lacks(PRESETS["htdemucs_ft"]) or ""
    assert all(signature in said for signature in FT.values())
    assert str(weights) in said
    with pytest.raises(PresetUnavailableError, match=HT):
        open_separator(PRESETS["htdemucs"])
    make_checkpoint(weights, HT)
    assert lacks(PRESETS["htdemucs"]) is None


def test_without_torch_it_says_what_to_install(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(weights, HT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'stemfleet[image]'" in (lacks(PRESETS["htdemucs"]) or "")
    assert lacks(PRESETS["center"]) is None


def test_the_process_serves_it(weights: Path, tmp_path: Path) -> None:
    make_checkpoint(weights, HT)
    source = write_audio(tmp_path / "in.flac", tones(96_000, 2, 48000), 48000, "flac")
    with separation_process(STEMSERVE_WEIGHTS=str(weights), OMP_NUM_THREADS="1") as process:
        presets = {preset.name: preset for preset in process.started.presets}
        assert presets["htdemucs"].available
        process.send(task(source, tmp_path / "out", preset="htdemucs"))
        *events, last = process.events()
        assert isinstance(last, Finished)
        percents = {event.details.percent for event in events if isinstance(event, Advanced)}
        assert len(percents) > 2
        sound, rate = read_audio(tmp_path / "out" / "vocals.wav")
        assert (sound.shape, rate) == ((96_000, 2), 48000)
        for path in weights.iterdir():
            path.unlink()
        again = process.outcome(task(source, tmp_path / "again", preset="htdemucs"))
        assert isinstance(again, Failed)
        assert again.error_type == "preset-unavailable"


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 90_000),
    frames=st.integers(1, 60_000),
    rate=st.sampled_from([44100, 44100, 48000, 8000, 37123]),
    tail=st.booleans(),
)
def test_a_span_is_what_the_whole_has_there(
    weights: Path, start: int, frames: int, rate: int, tail: bool
) -> None:
    if not list(weights.iterdir()):
        make_checkpoint(weights, HT)
    sound = np.random.default_rng(0).normal(0, 0.1, (100_000, 2)).astype(np.float32)
    stems = ["vocals", "instrumental", "bass"]
    span = Span(start, None if tail else start + frames)
    whole = separated("htdemucs", sound, stems, rate)
    part = separated("htdemucs", sound, stems, rate, span=span)
    for stem in stems:
        expected = whole[stem][span.start : span.end]
        if rate == 44100:
            np.testing.assert_array_equal(part[stem], expected)
        else:
            np.testing.assert_allclose(part[stem], expected, atol=1e-6)


def test_a_span_takes_no_more_of_the_track_than_it_needs(weights: Path) -> None:
    make_checkpoint(weights, HT)
    taken = 0

    def blocks() -> Iterator[Block]:
        nonlocal taken
        while True:
            taken += 10_000
            yield np.zeros((10_000, 2), np.float32)

    told: list[float] = []
    separator = open_separator(PRESETS["htdemucs"])
    list(separator(blocks(), 44100, ["bass"], Span(50_000, 80_000), told.append))
    assert taken < 80_000 + 2 * 22_050 + 20_000
    assert told == sorted(told)
    assert told[-1] == 30_000
