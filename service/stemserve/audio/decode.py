"""Decoding, with FFmpeg by way of PyAV: whatever it reads becomes blocks of float32.

An input is looked at twice. ``probe`` walks through its packets without decoding them, which costs
a fraction of a second and finds what is wrong before anything is spent on it; ``decode`` then
gives the sound.

A file is opened as a Python file with no protocol allowed to FFmpeg, so that a playlist or a
reference inside it cannot make the worker open anything else.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from stemserve.audio import Array, Block
from stemserve.audio.channels import mixdown
from stemserve.audio.riff import missing_bytes
from stemserve.errors import NotAudioError

BLOCK_FRAMES = 65536

_SLACK_SECONDS = 0.25
"""A container may promise this much more than it holds: encoder padding, sloppy edit lists."""

_KEEPS_ITS_PROMISE = {"flac", "mov", "mp4", "m4a", "3gp", "aiff", "w64", "caf"}
"""Formats whose header counts the audio itself. Others estimate it (MP3, AAC), or count the video
with it (Matroska): there a shortfall proves nothing."""

_PROTECTED = {"drms", "enca", "aavd"}
"""Codec tags of encrypted sound: FairPlay, Common Encryption, Audible."""


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
    with _opened(path) as (container, stream):
        first = _first_frame(container, stream)
        rate, names = first.sample_rate, [c.name for c in first.layout.channels]
    if rate <= 0 or not names:
        raise NotAudioError("The audio stream declares no sample rate or no channels.")
    with _opened(path) as (container, stream):
        tick = float(stream.time_base or 0)
        declared = (stream.duration or 0) * tick
        counted = end = 0
        for packet in _packets(container, stream):
            counted += packet.duration or 0
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
        held, end_time = counted * tick, end * tick
        formats = set(container.format.name.split(","))
        starts_late = bool(stream.start_time)
    remarks = []
    if len(names) > 2:
        remarks.append(f"{len(names)} channels ({', '.join(names)}) are mixed down to stereo.")
    if end_time + _SLACK_SECONDS < declared:
        if formats & _KEEPS_ITS_PROMISE:
            raise _cut_short(declared, end_time)
        if formats == {"mp3"} and starts_late:
            remarks.append(
                f"The file's header promises {declared:.1f} s, it holds {held:.1f} s: cut short?"
            )
    elif formats & _KEEPS_ITS_PROMISE and held + _SLACK_SECONDS < declared:
        remarks.append(f"The file is damaged: {declared - held:.1f} s in it cannot be read.")
    frames = round((held or declared) * rate)
    return AudioFacts(rate, min(len(names), 2), frames, tuple(remarks))


def decode(path: Path, facts: AudioFacts) -> Iterator[Block]:
    """The sound of a probed input: blocks of up to a few seconds, at the input's own rate.

    Samples that are no number become 0. A packet that cannot be decoded is left out.

    Raises:
        NotAudioError: nothing, or clearly less than the packets promise, could be decoded; or the
            rate or the channels change within the file.
    """
    matrix: Block | None = None
    channels = 0
    given = 0
    gathered: list[Block] = []
    waiting = 0
    with _opened(path) as (container, stream):
        for frame in _frames(container, stream):
            if not channels:
                channels = frame.layout.nb_channels
                matrix = mixdown([c.name for c in frame.layout.channels])
            if frame.sample_rate != facts.rate or frame.layout.nb_channels != channels:
                raise NotAudioError(
                    "The sample rate or the channels change within the file. "
                    "Convert it to one rate and one layout first."
                )
            samples = _samples(frame)
            gathered.append(samples if matrix is None else samples @ matrix)
            waiting += len(samples)
            if waiting >= BLOCK_FRAMES:
                given += waiting
                yield np.concatenate(gathered)
                gathered, waiting = [], 0
        given += waiting
        if waiting:
            yield np.concatenate(gathered)
    if not given:
        raise NotAudioError(
            "There is no audio that could be decoded: it is damaged or protected (DRM)."
        )
    if given < facts.frames * 0.9 - facts.rate * _SLACK_SECONDS:
        raise _damaged(given / facts.rate, facts.seconds)


@contextmanager
def _opened(path: Path) -> Generator[tuple[InputContainer, AudioStream], None, None]:
    with path.open("rb") as file:
        try:
            container = av.open(file, "r", options={"protocol_whitelist": "none"})
        except (av.FFmpegError, ValueError, EOFError) as error:
            raise NotAudioError(
                "The file is no audio or video that FFmpeg knows, or it was cut short. "
                "Play it locally, or export it again as WAV, FLAC or MP3."
            ) from error
        with container:
            if not container.streams.audio:
                raise NotAudioError("The file holds no audio stream.")
            stream = container.streams.audio[0]
            # PyAV gives no context where FFmpeg has no decoder, whatever its annotations say.
            if getattr(stream, "codec_context", None) is None:
                raise NotAudioError(
                    "The audio has a codec that FFmpeg cannot decode, or is protected (DRM)."
                )
            if stream.codec_context.codec_tag in _PROTECTED:
                raise NotAudioError(
                    "The audio is protected (DRM) and cannot be decoded. Use a copy without it."
                )
            yield container, stream


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


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except (av.FFmpegError, EOFError):
            continue


def _first_frame(container: InputContainer, stream: AudioStream) -> AudioFrame:
    frame = next(_frames(container, stream), None)
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
    if not np.isfinite(samples).all():
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
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
