"""Between the separators and the files: segments, ranges, derived stems, clipping, the sidecar."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from stemserve.audio import Block
from stemserve.audio.encode import Encoder, Encoding
from stemserve.audio.tags import Cover, Tags, read_tags
from stemserve.audio.wav import WavFile
from stemserve.schema import SIDECAR, STEM_FILE_STEMS, BitDepth, Clip, StemFormat
from stemserve.separation.outputs import Kept
from stemserve.separation.presets import PRESETS
from stemserve.separation.segments import Segments
from stemserve.task import Advanced, Committed, Failed, Finished, Logged, SeparationTask

from tests.sample import SONG
from tests.service.networks import make_weights
from tests.service.separating import MODULE_SECONDS, SeparationProcess, separation_process, task
from tests.service.sounds import cover_picture, read_audio, tones, write_audio
from tests.service.worker import eventually

RATE = 44_100
ALL = ("vocals", "instrumental", "drums", "bass", "other")


@pytest.fixture(scope="module")
def process() -> Iterator[SeparationProcess]:
    """One process for the module's tests."""
    with separation_process(deadline_s=MODULE_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen seconds of stereo noise, of which every second differs."""
    sound = np.random.default_rng(3).normal(0, 0.1, (16 * RATE, 2)).astype(np.float32)
    path = tmp_path_factory.mktemp("noise") / "noise.flac"
    return write_audio(path, sound, RATE, "flac")


def done_of(finished: Finished) -> dict[str, str]:
    """The digests of the files that hold sound."""
    return {result.name: result.sha256 for result in finished.results if result.name != SIDECAR}


def done(process: SeparationProcess, asked: SeparationTask) -> dict[str, str]:
    """Do a task; the digests of the files that hold sound."""
    finished = process.outcome(asked)
    assert isinstance(finished, Finished), finished
    return done_of(finished)


def stem(folder: Path, name: str) -> Block:
    """A stem in wav."""
    return read_audio(folder / f"{name}.wav")[0]


def told(folder: Path) -> dict[str, Any]:
    """What the sidecar says."""
    said: dict[str, Any] = json.loads((folder / SIDECAR).read_text())
    return said


def killed_in_third_segment(asked: SeparationTask, weights: str = "") -> None:
    """Begin a task in a process of its own, which is killed once two segments are on the disk."""
    with separation_process(
        fates=[-signal.SIGKILL],
        module="tests.service.halting",
        STEMSERVE_WEIGHTS=weights,
        OMP_NUM_THREADS="1",
    ) as running:
        running.send(asked)
        while True:
            event = running.next()
            assert not isinstance(event, Finished | Failed)
            if isinstance(event, Committed) and len(event.segments.segments) == 2:
                break
        running.process.kill()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bit_depth": "16", "mono": True},
        {"format": "flac", "stems": ["drums", "no_drums"]},
        {"format": "mp3", "template_mp3": True},
        {"format": "opus", "clip": "rescale"},
        {"format": "stem.mp4", "stems": STEM_FILE_STEMS},
        {"range": {"start_seconds": 1.2, "end_seconds": 15.5}},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "plain",
)
def test_a_killed_task_goes_on_behind_its_last_finished_segment(
    process: SeparationProcess, noise: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    undisturbed = done(process, task(noise, tmp_path / "undisturbed", **changes))
    asked = task(noise, tmp_path / "out", cut_points=[4, 9.5, 13], **changes)
    killed_in_third_segment(asked)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".partial"]
    process.send(asked)
    *events, last = process.events()
    assert isinstance(last, Finished)
    assert done_of(last) == undisturbed
    assert any(isinstance(e, Logged) and "goes on at 9.5 s" in e.line for e in events)
    counts = [e.details.completed_segments for e in events if isinstance(e, Advanced)]
    assert set(counts) - {0} == {2, 3, 4}
    assert not (tmp_path / "out" / ".partial").exists()


def test_a_killed_task_of_networks_goes_on_too(noise: Path, tmp_path: Path) -> None:
    make_weights(tmp_path, PRESETS["htdemucs_ft"])
    weights = str(tmp_path)
    place = {"start_seconds": 1.0, "end_seconds": 4.5}
    changes = {"preset": "htdemucs_ft", "stems": ["no_drums"], "range": place}
    killed_in_third_segment(task(noise, tmp_path / "out", cut_points=[2, 3, 4], **changes), weights)
    with separation_process(
        deadline_s=200, STEMSERVE_WEIGHTS=weights, OMP_NUM_THREADS="1"
    ) as running:
        done(running, task(noise, tmp_path / "undisturbed", **changes))
        running.send(task(noise, tmp_path / "out", **changes))
        *events, last = running.events()
    assert isinstance(last, Finished)
    assert any(isinstance(e, Logged) and "goes on at 3.0 s" in e.line for e in events)
    resumed, undisturbed = (stem(tmp_path / run, "no_drums") for run in ("out", "undisturbed"))
    assert np.abs(resumed - undisturbed).max() <= 1e-6
    assert "on cpu in " in told(tmp_path / "out")["maker"]["networks_run"]
    files = told(tmp_path / "out")["maker"]["weights"]
    assert len(files) == 4
    # Those of the drums were read, the others not.
    assert sum(file["sha256"] is not None for file in files) == 1
    assert not any(file["granted"] for file in files)


@pytest.mark.parametrize(
    "changes",
    [
        {"stems": ["vocals"]},
        {"stems": ["bass", "other"]},
        {"bit_depth": "24"},
        {"mono": True},
        {"clip": "clamp"},
        {"range": {"start_seconds": 1}},
    ],
    ids=lambda changes: "-".join(map(str, changes)),
)
def test_what_another_task_left_half_done_is_not_taken_up(
    process: SeparationProcess, noise: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    wanted = done(process, task(noise, tmp_path / "alone", **changes))
    killed_in_third_segment(task(noise, tmp_path / "out", cut_points=[4, 9.5, 13]))
    assert done(process, task(noise, tmp_path / "out", **changes)) == wanted


def test_what_is_left_of_another_input_or_damaged_is_not_taken_up(
    process: SeparationProcess, noise: Path, tmp_path: Path
) -> None:
    other = write_audio(tmp_path / "other.flac", tones(16 * RATE), RATE, "flac")
    wanted = done(process, task(other, tmp_path / "alone"))
    killed_in_third_segment(task(noise, tmp_path / "out", cut_points=[4, 9.5, 13]))
    assert done(process, task(other, tmp_path / "out")) == wanted
    killed_in_third_segment(task(other, tmp_path / "cut", cut_points=[4, 9.5, 13]))
    with (tmp_path / "cut" / ".partial" / "vocals.samples").open("r+b") as file:
        file.truncate(1_000_000)
    assert done(process, task(other, tmp_path / "cut")) == wanted


def test_ranges_are_the_samples_of_the_whole_and_join(
    process: SeparationProcess, noise: Path, tmp_path: Path
) -> None:
    whole = task(noise, tmp_path / "whole", stems=ALL)
    done(process, whole)
    places = [0, 4.30001, 4.31, 11.5, None]
    for number, (start, end) in enumerate(pairwise(places)):
        place = {"start_seconds": start, "end_seconds": end}
        done(process, task(noise, tmp_path / str(number), stems=ALL, range=place))
    for name in ALL:
        joined = np.concatenate([stem(tmp_path / str(number), name) for number in range(4)])
        assert joined.shape == (16 * RATE, 2)
        assert np.abs(joined - stem(tmp_path / "whole", name)).max() <= 1e-6


def test_a_range_is_as_long_as_it_says_and_ends_with_the_track(
    process: SeparationProcess, noise: Path, tmp_path: Path
) -> None:
    for start, end, frames in ((1, 1.5, 22_050), (15.9, 99, 4410), (0.00001, 0.00003, 1)):
        place = {"start_seconds": start, "end_seconds": end}
        finished = process.outcome(task(noise, tmp_path / "out", range=place, template_mp3=True))
        assert isinstance(finished, Finished)
        assert finished.duration_seconds == pytest.approx(frames / RATE)
        assert len(stem(tmp_path / "out", "vocals")) == frames
    for place in ({"start_seconds": 16.0}, {"start_seconds": 1e5, "end_seconds": 2e5}):
        failed = process.outcome(task(noise, tmp_path / "none", range=place))
        assert isinstance(failed, Failed)
        assert failed.error_type == "empty-range"
        assert "16.000 s" in failed.error


def test_derived_stems_are_the_mix_without_one(process: SeparationProcess, tmp_path: Path) -> None:
    song, _ = read_audio(SONG)
    names = [f"no_{name}" for name in ALL if name != "instrumental"]
    done(process, task(SONG, tmp_path / "derived", stems=["drums", *names]))
    done(process, task(SONG, tmp_path / "own", stems=ALL))
    for name in names:
        without = stem(tmp_path / "own", name.removeprefix("no_"))
        np.testing.assert_allclose(stem(tmp_path / "derived", name), song - without, atol=1e-6)
    np.testing.assert_array_equal(
        stem(tmp_path / "derived", "drums"), stem(tmp_path / "own", "drums")
    )
    failed = process.outcome(task(SONG, tmp_path / "none", stems=["no_guitar"]))
    assert isinstance(failed, Failed)
    assert failed.error_type == "unknown-name"


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A square wave at full scale, panned, whose parts are beyond full scale."""
    times = np.arange(5 * RATE) / RATE
    left = np.sign(np.sin(2 * np.pi * 220 * times))
    right = np.sign(np.sin(2 * np.pi * 311 * times))
    sound = np.stack([left, right], axis=1).astype(np.float32)
    path = tmp_path_factory.mktemp("loud") / "loud.wav"
    return write_audio(path, sound, RATE, "pcm_f32le", sample_format="flt")


def test_beyond_full_scale_is_kept_turned_down_or_held(
    process: SeparationProcess, loud: Path, tmp_path: Path
) -> None:
    song, _ = read_audio(loud)
    parts = ("vocals", "drums", "bass", "other")
    for clip in ("none", "rescale", "clamp"):
        done(process, task(loud, tmp_path / clip, stems=ALL, clip=clip))
    kept = {name: stem(tmp_path / "none", name) for name in ALL}
    peak = max(np.abs(sound).max() for sound in kept.values())
    assert peak > 1.01
    assert told(tmp_path / "none")["gain"] == 1
    assert told(tmp_path / "none")["held_at_full_scale"] == {}
    np.testing.assert_allclose(sum(kept[name] for name in parts), song, atol=1e-5)
    gain = told(tmp_path / "rescale")["gain"]
    assert gain == pytest.approx(1 / peak, rel=1e-3)
    for name, sound in kept.items():
        np.testing.assert_allclose(stem(tmp_path / "rescale", name), sound * gain, atol=1e-6)
        np.testing.assert_array_equal(stem(tmp_path / "clamp", name), np.clip(sound, -1, 1))
    held = told(tmp_path / "clamp")["held_at_full_scale"]
    beyond = {f"{name}.wav": int((np.abs(sound) > 1).sum()) for name, sound in kept.items()}
    assert held == {name: count for name, count in beyond.items() if count}


@pytest.mark.parametrize("stem_format", ["wav", "flac", "mp3"])
def test_rescaled_files_are_within_full_scale_in_every_format(
    process: SeparationProcess, loud: Path, tmp_path: Path, stem_format: str
) -> None:
    depth = None if stem_format == "mp3" else "16"
    asked = task(loud, tmp_path, stems=ALL, clip="rescale", format=stem_format, bit_depth=depth)
    process.send(asked)
    *events, last = process.events()
    assert isinstance(last, Finished)
    assert told(tmp_path)["held_at_full_scale"] == {}
    assert any(isinstance(e, Logged) and "turned down" in e.line for e in events)
    sounds = [read_audio(tmp_path / f"{name}.{stem_format}")[0] for name in ALL]
    assert max(np.abs(sound).max() for sound in sounds) > 0.9


@pytest.mark.parametrize(
    "changes",
    [
        {"bit_depth": "16"},
        {"format": "flac"},
        {"format": "mp3"},
        {"format": "opus", "clip": "clamp"},
        {"format": "stem.mp4", "stems": STEM_FILE_STEMS},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_what_is_held_at_full_scale_is_told(
    process: SeparationProcess, loud: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    process.send(task(loud, tmp_path, **({"stems": ALL} | changes)))
    *events, last = process.events()
    assert isinstance(last, Finished)
    held = told(tmp_path)["held_at_full_scale"]
    assert held
    lines = [event.line for event in events if isinstance(event, Logged)]
    for name, count in held.items():
        assert any(line.startswith(f"{name}: {count} samples held") for line in lines)


def test_tags_and_cover_go_into_the_stems(process: SeparationProcess, tmp_path: Path) -> None:
    tags = Tags(
        (("title", "A Song"), ("artist", "Somebody"), ("track", "3")),
        Cover("png", 32, 32, cover_picture("png", 32, 32)),
    )
    with Encoder(tmp_path / "in", Encoding(StemFormat.MP3), RATE, 2, tags) as encoder:
        encoder.write(tones(50_000))
    for stem_format in ("flac", "mp3", "opus", "m4a"):
        done(process, task(tmp_path / "in", tmp_path / "out", format=stem_format))
        assert read_tags(tmp_path / "out" / f"vocals.{stem_format}") == tags


def test_the_sidecar_tells_how_the_files_were_made(
    process: SeparationProcess, noise: Path, tmp_path: Path
) -> None:
    wanted = done(process, task(noise, tmp_path, format="flac", input_name="Noise.flac"))
    said = told(tmp_path)
    content = subprocess.run(["sha256sum", str(noise)], capture_output=True, text=True, check=True)
    assert said["input"]["sha256"] == content.stdout.split()[0]
    assert said["input"]["name"] == "Noise.flac"
    assert said["input"]["seconds"] == pytest.approx(16)
    assert said["parameters"]["stems"] == ["vocals", "instrumental"]
    assert said["parameters"]["bit_depth"] == "16"
    assert said["maker"]["preset"] == "center"
    assert said["maker"]["weights"] == []
    assert said["maker"]["networks_run"] is None
    assert said["maker"]["device"] == process.started.device
    assert {"stemfleet", "numpy", "av"} <= set(said["maker"]["versions"])
    assert said["realtime"] == pytest.approx(16 / said["seconds"], rel=0.01)
    assert set(said["peaks"]) == {"vocals", "instrumental"}
    assert set(wanted) == {"vocals.flac", "instrumental.flac"}


def test_a_stem_file_is_the_mix_and_four_stems(
    process: SeparationProcess, noise: Path, tmp_path: Path
) -> None:
    names = done(process, task(noise, tmp_path, format="stem.mp4", stems=STEM_FILE_STEMS))
    assert set(names) == {"mix.stem.mp4"}
    content = (tmp_path / "mix.stem.mp4").read_bytes()
    at = content.rindex(b"stem{") - 4
    atom = json.loads(content[at + 8 : at + int.from_bytes(content[at : at + 4], "big")])
    assert [about["name"] for about in atom["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    assert atom["version"] == 1
    sounds: list[Block] = []
    for number in range(5):
        with av.open(tmp_path / "mix.stem.mp4") as container:
            assert len(container.streams.audio) == 5
            stream = container.streams.audio[number]
            assert stream.duration == 16 * RATE
            frames = [frame.to_ndarray().T for frame in container.decode(stream)]
        sounds.append(np.concatenate(frames)[: 16 * RATE].astype(np.float32))
    mix, _ = read_audio(noise)
    inner = slice(RATE, -RATE)
    error = np.sum(sounds[1:], axis=0) - sounds[0]
    assert np.abs(sounds[0] - mix)[inner].mean() < 0.03
    assert np.mean(error[inner] ** 2) < 0.1 * np.mean(mix[inner] ** 2)
    failed = process.outcome(task(noise, tmp_path / "none", format="stem.mp4"))
    assert isinstance(failed, Failed)
    assert failed.error_type == "unknown-name"


def test_a_disk_that_fails_behind_the_work_is_told_and_nothing_is_called_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: WavFile) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    part = {"vocals": np.zeros((100, 2), np.float32)}
    kept = {"vocals": Kept(BitDepth.F32, mono=False)}
    segments = Segments(tmp_path, "a key", kept, RATE, 2, Clip.NONE)
    segments.append(part)
    segments.commit(1.0)
    eventually(segments.moved)
    segments.append(part)
    monkeypatch.setattr(WavFile, "sync", fails)
    segments.commit(2.0)
    with pytest.raises(OSError, match="broken"):
        segments.end(3.0)
    segments.close()
    again = Segments(tmp_path, "a key", kept, RATE, 2, Clip.NONE)
    assert (again.frames, again.journal.seconds, again.journal.ended) == (100, 1.0, False)
    again.close()
