"""The Demucs presets, with random weights: the same numbers as the package's own, in a stream."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import BagOfModels, Model, apply_model
from demucs.htdemucs import HTDemucs
from hypothesis import given, settings
from hypothesis import strategies as st
from stemserve.audio import Block
from stemserve.errors import PresetUnavailableError
from stemserve.separation.checkpoint import load_network
from stemserve.separation.presets import PRESETS, lacks
from stemserve.separation.separators import open_separator
from stemserve.separation.windows import Outputs, Windows, run_windows
from stemserve.task import Advanced, Failed, Finished
from stemserve.weights.files import DIRECTORY_VARIABLE

from tests.service.separating import separation_process, task
from tests.service.sounds import read_audio, tones, write_audio

SOURCES = ["drums", "bass", "other", "vocals"]
SMALL = {
    "sources": SOURCES,
    "channels": 8,
    "t_layers": 1,
    "t_heads": 2,
    "bottom_channels": 32,
    "segment": Fraction(1, 2),
}
TRUE_SIZE = {
    "sources": SOURCES,
    "channels": 48,
    "t_layers": 5,
    "dconv_mode": 3,
    "bottom_channels": 512,
    "segment": Fraction(39, 5),
}
SIGNATURES = {"drums": "f7e0c4bc", "bass": "d12395a8", "other": "92cfc3b6", "vocals": "04573f0d"}
CLOSE = 1e-5


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that weights are looked for in."""
    place = tmp_path / "weights"
    place.mkdir()
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(place))
    monkeypatch.setattr("stemserve.separation.separators._loaded", {})
    return place


def make_checkpoint(
    place: Path, signature: str, *, true_size: bool = False, seed: int = 0
) -> HTDemucs:
    """A network with random weights, and its checkpoint as the Demucs project writes one."""
    settings = TRUE_SIZE if true_size else SMALL
    torch.manual_seed(seed)
    network: HTDemucs = HTDemucs(**settings)
    network.eval()
    state = network.state_dict()
    if true_size:  # as published: in half precision
        state = {name: value.half() for name, value in state.items()}
    package = {
        "klass": HTDemucs,
        "args": (),
        "kwargs": settings | {"no_longer_a_setting": 1},
        "state": state,
        "training_args": {"optim": {"lr": 3e-4}, "dset": {"sources": SOURCES}},
    }
    content = io.BytesIO()
    torch.save(package, content)
    write_named(place, signature, content.getvalue())
    return network


def write_named(place: Path, signature: str, content: bytes) -> Path:
    """A file under the name that its content gives it."""
    path = place / f"{signature}-{hashlib.sha256(content).hexdigest()[:8]}.th"
    path.write_bytes(content)
    return path


def reference(network: HTDemucs | BagOfModels, sound: Block) -> dict[str, Block]:
    """What the package's own code makes of a whole track."""
    mix = torch.from_numpy(sound.T.copy())[None]
    with torch.no_grad():
        out = apply_model(network, mix, shifts=0, split=True, overlap=0.25)[0]
    return {name: out[number].numpy().T for number, name in enumerate(SOURCES)}


def separated(
    preset: str, sound: Block, stems: list[str], rate: int = 44100, block: int = 10_000
) -> dict[str, Block]:
    """Whole stems of a sound, fed in blocks."""
    blocks = (sound[at : at + block] for at in range(0, len(sound), block))
    parts = list(open_separator(PRESETS[preset])(blocks, rate, stems))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in stems}


@pytest.mark.parametrize("frames", [1, 16_000, 22_050, 22_051, 40_000, 100_003])
def test_the_stream_gives_what_the_whole_track_gives(weights: Path, frames: int) -> None:
    network = make_checkpoint(weights, "955717e8")
    sound = np.random.default_rng(0).normal(0, 0.1, (frames, 2)).astype(np.float32)
    ours = separated("htdemucs", sound, [*SOURCES, "instrumental"])
    for name, theirs in reference(network, sound).items():
        assert np.abs(theirs - ours[name]).max() < CLOSE
        assert ours[name].shape == sound.shape
    np.testing.assert_allclose(ours["vocals"] + ours["instrumental"], sound, atol=1e-6)


def test_each_network_of_the_bag_answers_for_its_own_source(weights: Path) -> None:
    networks: list[Model] = [
        make_checkpoint(weights, signature, seed=number)
        for number, signature in enumerate(SIGNATURES.values())
    ]
    bag = BagOfModels(networks, np.eye(4).tolist())
    sound = tones(60_000)
    ours = separated("htdemucs_ft", sound, SOURCES)
    for name, theirs in reference(bag, sound).items():
        assert np.abs(theirs - ours[name]).max() < CLOSE


def test_only_the_networks_of_wanted_stems_are_read(weights: Path) -> None:
    for signature in SIGNATURES.values():
        make_checkpoint(weights, signature)
    for path in weights.iterdir():
        if not path.name.startswith(SIGNATURES["vocals"]):
            path.write_bytes(b"not what the name says")
    assert set(separated("htdemucs_ft", tones(5000), ["instrumental"])) == {"instrumental"}
    with pytest.raises(PresetUnavailableError, match="damaged"):
        separated("htdemucs_ft", tones(5000), ["drums"])


@pytest.mark.parametrize("rate", [8000, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_and_mono_keep_length_and_sum(weights: Path, rate: int, channels: int) -> None:
    make_checkpoint(weights, "955717e8")
    sound = tones(rate + 7, channels, rate)
    stems = separated("htdemucs", sound, ["instrumental", "vocals"], rate)
    assert {stem.shape for stem in stems.values()} == {sound.shape}
    np.testing.assert_allclose(stems["vocals"] + stems["instrumental"], sound, atol=1e-6)


def test_a_network_of_the_true_size(weights: Path) -> None:
    """42 million parameters, in half precision on disk: one window goes through and says much."""
    make_checkpoint(weights, "955717e8", true_size=True)
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
    assert all(signature in said for signature in SIGNATURES.values())
    assert str(weights) in said
    with pytest.raises(PresetUnavailableError, match="955717e8"):
        open_separator(PRESETS["htdemucs"])
    make_checkpoint(weights, "955717e8")
    assert lacks(PRESETS["htdemucs"]) is None


def test_without_torch_it_says_what_to_install(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(weights, "955717e8")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'stemfleet[image]'" in (lacks(PRESETS["htdemucs"]) or "")
    assert lacks(PRESETS["center"]) is None


def test_the_process_serves_it(weights: Path, tmp_path: Path) -> None:
    make_checkpoint(weights, "955717e8")
    source = write_audio(tmp_path / "in.flac", tones(96_000, 2, 48000), 48000, "flac")
    with separation_process(STEMSERVE_WEIGHTS=str(weights)) as process:
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


@settings(max_examples=50, deadline=None)
@given(
    frames=st.integers(1, 700),
    length=st.integers(2, 150),
    overlap=st.floats(0, 0.9),
    sizes=st.lists(st.integers(1, 300), min_size=1, max_size=4),
)
def test_windows_lie_on_one_grid_whatever_the_blocks(
    frames: int, length: int, overlap: float, sizes: list[int]
) -> None:
    windows = Windows(length, min(overlap, 1 - 1 / length))
    sound = np.random.default_rng(frames).random((frames, 2)).astype(np.float32)
    seen: list[Outputs] = []

    def network(window: Outputs) -> Outputs:
        assert window.shape == (2, length)
        seen.append(window)
        return window[None]

    def blocks() -> Iterator[Block]:
        at = number = 0
        while at < frames:
            size = sizes[number % len(sizes)]
            yield sound[at : at + size]
            at, number = at + size, number + 1

    out = np.concatenate(list(run_windows(blocks(), windows, network)), axis=-1)
    assert out.shape == (1, 2, frames)
    np.testing.assert_allclose(out[0].T, sound, atol=1e-5)
    assert len(seen) == -(-frames // windows.step)
