"""Decoding, with FFmpeg by way of PyAV: whatever it reads becomes blocks of float32.

An input is looked at twice. ``probe`` walks through its packets without decoding them, which costs
a fraction of a second and finds what is wrong before anything is spent on it; ``decode`` then
gives the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from stemserve.audio import Array, Block
from stemserve.audio.channels import mixdown
from stemserve.audio.media import opened
from stemserve.audio.riff import missing_bytes
from stemserve.errors import NotAudioError

BLOCK_FRAMES = 65536

_SLACK_SECONDS = 0.25
"""A container may promise this much more than it holds: encoder padding, sloppy edit lists."""

_KEEPS_ITS_PROMISE = {"flac", "mov", "mp4", "m4a", "3gp", "aiff", "w64", "caf"}
"""Formats whose header counts the audio itself. Others estimate it (MP3, AAC), or count the video
with it (Matroska): there a shortfall proves nothing."""

_LONGEST_GAP_SECONDS = 10.0
"""One damaged packet may claim to have been this long, whatever it says."""

_TAIL_SECONDS = 0.1

_REMARKS = 10
"""So many damaged places are told one by one."""


@dataclass(frozen=True)
class AudioFacts:
    """What is known of an input before it is decoded."""

    rate: int
    channels: int
    """Channels that ``decode`` gives: 1 for mono, 2 for everything else."""
    frames: int
    """Frames by the count of the packets; the decoded length may differ by codec padding."""
    remarks: tuple[str, ...] = ()
    """What a person would want to know of it, though it can be separated."""
    damage: tuple[str, ...] = ()
    """What is wrong with it, though it can be separated."""
    whole_frames: int | None = None
    """Where the container says so: the frames without the padding of the last packet."""
    source_channels: int = 0
    """Channels that the input has."""

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate


def probe(path: Path) -> AudioFacts:
    """Look at an input: that it is audio, whole, and how long.

    Raises:
        NotAudioError: it is empty, no audio, protected, or shorter than its header promises.
    """
    if path.stat().st_size == 0:
        raise NotAudioError("The file is empty. Check the download or the export, and try again.")
    _check_riff(path)
    with opened(path) as (container, stream):
        first = _first_frame(container, stream)
        rate, names = first.sample_rate, [c.name for c in first.layout.channels]
    if rate <= 0 or not names:
        raise NotAudioError("The audio stream declares no sample rate or no channels.")
    with opened(path) as (container, stream):
        tick = float(stream.time_base or 0)
        declared = (stream.duration or 0) * tick
        counted = end = 0
        for packet in _packets(container, stream):
            counted += packet.duration or 0
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
        held, end_time = counted * tick, end * tick
        formats = set(container.format.name.split(","))
        starts_late = bool(stream.start_time)
    remarks, damage = [], []
    if len(names) > 2:
        remarks.append(f"{len(names)} channels ({', '.join(names)}) are mixed down to stereo.")
    if end_time + _SLACK_SECONDS < declared:
        if formats & _KEEPS_ITS_PROMISE:
            raise _cut_short(declared, end_time)
        if formats == {"mp3"} and starts_late:
            damage.append(
                f"The file's header promises {declared:.1f} s, it holds {held:.1f} s: cut short?"
            )
    elif formats & _KEEPS_ITS_PROMISE and held + _SLACK_SECONDS < declared:
        damage.append(f"The file is damaged: {declared - held:.1f} s in it cannot be read.")
    frames = round((held or declared) * rate)
    whole = round(declared * rate) if "mp4" in formats else 0
    padded = whole > 0 and 0 < frames - whole < _SLACK_SECONDS * rate
    return AudioFacts(
        rate,
        min(len(names), 2),
        whole if padded else frames,
        tuple(remarks),
        tuple(damage),
        whole if padded else None,
        len(names),
    )


def decode(
    path: Path,
    facts: AudioFacts,
    *,
    strict: bool = False,
    remark: Callable[[str], None] | None = None,
) -> Iterator[Block]:
    """The sound of a probed input: blocks of up to a few seconds, at the input's own rate.

    Samples that are no number become 0, and so does what a packet that cannot be decoded held:
    what comes after it stays in its place.

    Args:
        path: the input.
        facts: what ``probe`` said of it.
        strict: raise over the first such packet or sample.
        remark: told what is wrong, as it is met.

    Raises:
        NotAudioError: nothing, or clearly less than the packets promise, could be decoded; or the
            rate or the channels change within the file.
    """
    damage = _Damage(facts.rate, strict, remark or (lambda line: None))
    given = 0
    gathered: list[Block] = []
    waiting = 0
    with opened(path) as (container, stream):
        for samples in _sound(container, stream, facts, damage):
            room = None
            if facts.whole_frames is not None:
                room = max(0, facts.whole_frames - given - waiting)
            gathered.append(samples[:room])
            waiting += len(gathered[-1])
            if waiting >= BLOCK_FRAMES:
                given += waiting
                yield np.concatenate(gathered)
                gathered, waiting = [], 0
        given += waiting
        if waiting:
            yield np.concatenate(gathered)
    heard = given - damage.lost
    if heard <= 0:
        raise NotAudioError(
            "There is no audio that could be decoded: it is damaged or protected (DRM)."
        )
    if heard < facts.frames * 0.9 - facts.rate * _SLACK_SECONDS:
        raise _damaged(heard / facts.rate, facts.seconds)


def _sound(
    container: InputContainer, stream: AudioStream, facts: AudioFacts, damage: _Damage
) -> Iterator[Block]:
    """What the packets hold, each in its place: mono or stereo, and all of it numbers."""
    matrix: Block | None = None
    channels = at = missing = 0
    for frame in _frames(container, stream):
        if isinstance(frame, _Gap):
            missing += round(min(frame.seconds, _LONGEST_GAP_SECONDS) * facts.rate)
            continue
        if not channels:
            channels = frame.layout.nb_channels
            matrix = mixdown([c.name for c in frame.layout.channels])
        if frame.sample_rate != facts.rate or frame.layout.nb_channels != channels:
            raise NotAudioError(
                "The sample rate or the channels change within the file. "
                "Convert it to one rate and one layout first."
            )
        if missing:
            yield damage.silence(at, missing, facts.channels)
            at, missing = at + missing, 0
        samples = _samples(frame)
        if not np.isfinite(samples).all():
            damage.no_numbers(at)
            np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        at += len(samples)
        yield samples if matrix is None else samples @ matrix
    # A packet or two of what is no sound often stands at the end: some program's tags.
    if missing > _TAIL_SECONDS * facts.rate:
        yield damage.silence(at, missing, facts.channels)


@dataclass
class _Damage:
    """Tells what is wrong: the first places one by one, or by raising."""

    rate: int
    strict: bool
    remark: Callable[[str], None]
    told: int = 0
    lost: int = 0
    """Frames that could not be decoded."""

    def silence(self, at: int, frames: int, channels: int) -> Block:
        """What stands in the place of so many frames that cannot be decoded."""
        self.lost += frames
        self._tell(at, "the file is damaged and cannot be decoded: silence there")
        return np.zeros((frames, channels), np.float32)

    def no_numbers(self, at: int) -> None:
        """There are samples that are no number."""
        self._tell(at, "there are samples that are no number (NaN, infinity): silence there")

    def _tell(self, at: int, what: str) -> None:
        if self.strict:
            raise NotAudioError(
                f"At {at / self.rate:.1f} s {what}. "
                "Use a sound copy, or leave out strict to have the rest."
            )
        self.told += 1
        if self.told <= _REMARKS:
            more = " (and so on)" if self.told == _REMARKS else ""
            self.remark(f"At {at / self.rate:.1f} s {what}{more}")


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[av.Packet[AudioStream]]:
    """The stream's packets up to the end, or to where the container cannot be read further."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, EOFError):
            return
        if packet is None:
            return
        yield packet


@dataclass(frozen=True)
class _Gap:
    """The place of a packet that cannot be decoded."""

    seconds: float


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame | _Gap]:
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except (av.FFmpegError, EOFError):
            yield _Gap(float((packet.duration or 0) * (packet.time_base or 0)))
        else:
            yield from frames


def _first_frame(container: InputContainer, stream: AudioStream) -> AudioFrame:
    frames = (f for f in _frames(container, stream) if isinstance(f, AudioFrame))
    frame = next(frames, None)
    if frame is None:
        raise NotAudioError(
            "There is no audio that could be decoded: it is empty, damaged or protected (DRM)."
        )
    return frame


def _samples(frame: AudioFrame) -> Block:
    """A frame as float32 [frames, channels]."""
    raw: Array = frame.to_ndarray()
    raw = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if raw.dtype == np.uint8:
        return (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    if raw.dtype.kind == "i":
        full_scale = np.float32(2 ** (8 * raw.dtype.itemsize - 1))
        return raw.astype(np.float32) / full_scale
    samples: Block = raw.astype(np.float32)
    return samples


def _check_riff(path: Path) -> None:
    missing = missing_bytes(path)
    if missing > 4096:
        raise NotAudioError(
            f"The file was cut short: {missing:,} bytes that its header promises are missing. "
            "Copy or download it again."
        )


def _cut_short(declared: float, held: float) -> NotAudioError:
    return NotAudioError(
        f"The file was cut short: its header promises {declared:.1f} s of sound, "
        f"it holds {held:.1f} s. Copy or download it again."
    )


def _damaged(held: float, promised: float) -> NotAudioError:
    return NotAudioError(
        f"The file is damaged or protected (DRM): of {promised:.1f} s only {held:.1f} s could be "
        "decoded. Copy or download it again."
    )
