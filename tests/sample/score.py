"""The sample song as data: a tune of our own, eight bars in A minor at 100 beats a minute."""

from __future__ import annotations

from dataclasses import dataclass

BEATS_PER_MINUTE = 100
BARS = 8
TAIL_SECONDS = 1.2

CHORDS = (
    (45, (57, 60, 64, 71)),
    (41, (57, 60, 65, 67)),
    (48, (55, 60, 64, 67)),
    (43, (55, 59, 62, 69)),
    (50, (57, 62, 65, 72)),
    (41, (57, 60, 65, 69)),
    (40, (56, 59, 62, 64)),
    (45, (57, 60, 64, 71)),
)
"""One a bar: the bass's root, and the notes above it, as MIDI numbers."""

SUNG = (
    # beat, beats, MIDI note, onset, vowel
    (4.0, 0.9, 69, "l", "a"),
    (5.0, 0.5, 72, "n", "e"),
    (5.5, 1.4, 71, "s", "o"),
    (7.0, 0.9, 67, "m", "i"),
    (8.0, 1.4, 64, "d", "u"),
    (9.5, 0.5, 67, "l", "a"),
    (10.0, 1.8, 69, "", "a"),
    (12.5, 0.5, 67, "t", "o"),
    (13.0, 0.9, 71, "n", "a"),
    (14.0, 0.5, 74, "s", "i"),
    (14.5, 1.4, 72, "m", "e"),
    (16.0, 0.9, 69, "l", "u"),
    (17.0, 0.9, 65, "d", "a"),
    (18.0, 1.8, 74, "s", "o"),
    (20.0, 0.5, 72, "n", "i"),
    (20.5, 0.5, 69, "t", "e"),
    (21.0, 1.4, 72, "m", "a"),
    (23.0, 0.9, 67, "l", "o"),
    (24.0, 0.9, 71, "d", "o"),
    (25.0, 0.9, 68, "l", "i"),
    (26.0, 1.8, 71, "m", "u"),
    (28.0, 3.4, 69, "l", "a"),
)


@dataclass(frozen=True)
class Note:
    """A played note, in beats."""

    beat: float
    beats: float
    pitch: int
    velocity: int
    channel: int


@dataclass(frozen=True)
class Part:
    """A General MIDI instrument on a channel, and where it stands (0 left, 64 centre, 127)."""

    channel: int
    program: int
    pan: int
    volume: int = 100


DRUMMER = (Part(9, 0, 64),)
BASSIST = (Part(0, 33, 64),)
OTHERS = (
    Part(0, 4, 24, 92),  # electric piano
    Part(1, 25, 108, 96),  # steel-string guitar
    Part(2, 48, 4, 70),  # strings, one desk on each side
    Part(3, 49, 123, 70),
    Part(4, 11, 90, 84),  # vibraphone
)


def drums() -> list[Note]:
    """Kick, snare and hats, a fill before the last bar."""
    notes = [Note(0, 1, 49, 92, 9), Note(28, 1, 49, 88, 9)]
    for bar in range(BARS):
        at = bar * 4
        kicks = (0, 2.5) if bar % 2 else (0, 1.5, 2.5)
        notes += [Note(at + k, 0.25, 36, 112, 9) for k in kicks]
        if bar == BARS - 2:
            toms = ((2, 50), (2.25, 50), (2.5, 47), (2.75, 47), (3, 45), (3.5, 41))
            notes += [Note(at + b, 0.25, pitch, 100, 9) for b, pitch in toms]
        else:
            notes.append(Note(at + 3, 0.25, 38, 108, 9))
        notes.append(Note(at + 1, 0.25, 38, 106, 9))
        for eighth in range(8):
            pitch = 46 if eighth == 7 and bar % 4 == 3 else 42
            notes.append(Note(at + eighth / 2, 0.25, pitch, 84 if eighth % 2 else 64, 9))
    return notes


def bass() -> list[Note]:
    """Roots and fifths, leaning into the next bar."""
    notes = []
    for bar, (root, _) in enumerate(CHORDS):
        at = bar * 4
        if bar == len(CHORDS) - 1:
            notes.append(Note(at, 3.5, root - 12, 104, 0))
            continue
        following = CHORDS[bar + 1][0] - 12
        low = root - 12
        steps = ((0, 1.4, low), (1.5, 0.9, low), (2.5, 0.9, low + 7), (3.5, 0.45, following - 1))
        notes += [Note(at + b, length, pitch, 104, 0) for b, length, pitch in steps]
    return notes


def others() -> list[Note]:
    """Chords on the left, broken chords on the right, strings around, a few bells."""
    notes = []
    for bar, (_, chord) in enumerate(CHORDS):
        at = bar * 4
        last = bar == len(CHORDS) - 1
        for beat, length in ((0, 3.6),) if last else ((0, 1.3), (1.5, 0.8), (3, 0.9)):
            notes += [Note(at + beat, length, pitch, 80, 0) for pitch in chord]
        for eighth in range(1 if last else 8):
            pitch = chord[(0, 2, 1, 3, 2, 1, 3, 2)[eighth]] + (12 if eighth in (3, 6) else 0)
            notes.append(Note(at + eighth / 2, 0.8, pitch, 90, 1))
        notes += [Note(at, 3.9, pitch + 12, 66, 2) for pitch in chord[::2]]
        notes += [Note(at, 3.9, pitch, 70, 3) for pitch in chord[1::2]]
        if bar % 2:
            notes += [
                Note(at + 2 + step / 2, 0.7, chord[-1 - step] + 12, 82, 4) for step in range(3)
            ]
    return notes
