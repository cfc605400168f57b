"""Makes the sample song again: `python -m tests.sample.render`.

Needs fluidsynth and the FluidR3 General MIDI sound font (Debian: fluidsynth, fluid-soundfont-gm).
The stems are encoded first; what they decode to is the truth, and the song is its sum. So the song
is the sum of the stems beside it to the last bit of 16, though those are small and lossy.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import av
import numpy as np
import soxr
from numpy.typing import NDArray
from stemserve.audio.decode import decode, probe

from tests.sample import SONG, STEMS, score
from tests.sample.measure import true_stems
from tests.sample.voice import sing

RATE = 44100
OPUS_RATE = 48000
BEAT = 60 / score.BEATS_PER_MINUTE
FRAMES = round((4 * score.BARS * BEAT + score.TAIL_SECONDS) * RATE)
BITS = {"vocals": 48_000, "drums": 56_000, "bass": 28_000, "other": 60_000}
LEVELS = {"vocals": 0.088, "drums": 0.075, "bass": 0.08, "other": 0.075}
"""Root mean square of each stem before the whole is brought to ``PEAK``."""
PEAK = 0.5
TOP_HERTZ = 11000
"""Nothing above: it would be a third of the lossless file."""

Sound = NDArray[np.float64]


def main() -> None:
    """Render the stems and the song."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--soundfont", type=Path, default="/usr/share/sounds/sf2/FluidR3_GM.sf2")
    font: Path = parser.parse_args().soundfont
    dry = sing(score.SUNG, BEAT, FRAMES, RATE)
    stems = {
        "vocals": _in_a_room(np.stack([dry, dry], axis=1)),
        "drums": _played(score.DRUMMER, score.drums(), font),
        "bass": _played(score.BASSIST, score.bass(), font),
        "other": _played(score.OTHERS, score.others(), font),
    }
    stems = {name: _level(_without_top(sound), LEVELS[name]) for name, sound in stems.items()}
    gain = PEAK / np.abs(sum(stems.values())).max()
    for name, sound in stems.items():
        _write_opus(STEMS[name], sound * gain, BITS[name])
    mix = sum(true_stems().values())
    _write_flac(SONG, np.asarray(mix))


def _played(parts: tuple[score.Part, ...], notes: list[score.Note], font: Path) -> Sound:
    """Notes on General MIDI instruments, [FRAMES, 2]."""
    with tempfile.TemporaryDirectory() as place:
        midi, wav = Path(place) / "part.mid", Path(place) / "part.wav"
        midi.write_bytes(_midi(parts, notes))
        command = [
            "fluidsynth",
            "-ni",
            "-q",
            "-g",
            "0.5",
            "-r",
            str(RATE),
            "-F",
            *map(str, (wav, font, midi)),
        ]
        subprocess.run(command, check=True)
        sound = np.concatenate(list(decode(wav, probe(wav))))[:FRAMES].astype(np.float64)
    sound = np.pad(sound, ((0, FRAMES - len(sound)), (0, 0)))
    fade = round(0.3 * RATE)
    sound[-fade:] *= np.linspace(1, 0, fade)[:, None] ** 2
    return sound


def _midi(parts: tuple[score.Part, ...], notes: list[score.Note]) -> bytes:
    """A standard MIDI file of one track, 480 ticks a beat."""
    events: list[tuple[int, int, bytes]] = []
    for part in parts:
        events.append((0, 0, bytes([0xC0 | part.channel, part.program])))
        for control, value in ((10, part.pan), (7, part.volume), (91, 50), (93, 20)):
            events.append((0, 0, bytes([0xB0 | part.channel, control, value])))
    for note in notes:
        begin, end = round(note.beat * 480), round((note.beat + note.beats) * 480)
        events.append((begin, 2, bytes([0x90 | note.channel, note.pitch, note.velocity])))
        events.append((end, 1, bytes([0x80 | note.channel, note.pitch, 0])))
    tempo = round(60_000_000 / score.BEATS_PER_MINUTE)
    body = b"\x00\xff\x51\x03" + tempo.to_bytes(3, "big")
    at = 0
    for tick, _, message in sorted(events):
        body += _length(tick - at) + message
        at = tick
    body += _length(480 * 3) + b"\xff\x2f\x00"
    head = b"MThd" + (6).to_bytes(4, "big") + bytes([0, 0, 0, 1]) + (480).to_bytes(2, "big")
    return head + b"MTrk" + len(body).to_bytes(4, "big") + body


def _length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.insert(0, value & 0x7F | 0x80)
    return bytes(out)


def _in_a_room(sound: Sound) -> Sound:
    """With a reverberation that differs between the sides, as around a voice in a mix."""
    random = np.random.default_rng(3)
    length = round(1.3 * RATE)
    times = np.arange(length) / RATE
    tail = random.standard_normal((length, 2)) * (np.exp(-times / 0.22) * (times > 0.018))[:, None]
    tail /= np.sqrt((tail**2).sum(axis=0))
    size = 1 << (len(sound) + length).bit_length()
    wet = np.fft.irfft(np.fft.rfft(sound, size, 0) * np.fft.rfft(tail, size, 0), size, 0)
    return sound + 0.16 * wet[: len(sound)]


def _without_top(sound: Sound) -> Sound:
    spectrum = np.fft.rfft(sound, axis=0)
    frequencies = np.fft.rfftfreq(len(sound), 1 / RATE)
    fall = np.clip((TOP_HERTZ - frequencies) / 1000 + 1, 0, 1)
    lower: Sound = np.fft.irfft(spectrum * fall[:, None], len(sound), axis=0)
    return lower


def _level(sound: Sound, level: float) -> Sound:
    scaled: Sound = sound * (level / float(np.sqrt((sound**2).mean())))
    return scaled


def _write_flac(path: Path, sound: NDArray[np.float32]) -> None:
    """16 bits, with more effort for a small file than a stem is worth."""
    samples = np.rint(sound * 32768).astype(np.int16).reshape(1, -1)
    with av.open(path, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="stereo", format="s16")
        stream.codec_context.options = {"compression_level": "12", "max_prediction_order": "32"}
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _write_opus(path: Path, sound: Sound, bits: int) -> None:
    at_48k = soxr.resample(sound.astype(np.float32), RATE, OPUS_RATE, quality="VHQ")
    with av.open(path, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=OPUS_RATE, layout="stereo", format="flt")
        stream.codec_context.bit_rate = bits
        stream.codec_context.options = {"vbr": "on", "application": "audio"}
        frame = av.AudioFrame.from_ndarray(at_48k.reshape(1, -1), format="flt", layout="stereo")
        frame.sample_rate, frame.pts = OPUS_RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
