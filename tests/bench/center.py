"""How well and how fast the preset without weights separates the sample song.

A gain is the estimate's signal-to-distortion ratio less that of the untouched mix, in dB.
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from stemserve.audio.decode import decode, probe
from stemserve.separation.center import STEMS, separate

from tests.sample import SONG
from tests.sample.measure import sdr, true_stems

_RUNS = 3


def measure() -> dict[str, float]:
    """Gains in dB, and seconds of audio separated into all five stems in a second of wall time."""
    facts = probe(SONG)
    blocks = list(decode(SONG, facts))
    mix = np.concatenate(blocks)
    walls = []
    for _ in range(_RUNS):
        started = perf_counter()
        parts = list(separate(decode(SONG, facts), facts.rate, STEMS))
        walls.append(perf_counter() - started)
    truth = true_stems()
    truth["instrumental"] = truth["drums"] + truth["bass"] + truth["other"]
    figures = {"realtime": len(mix) / facts.rate / min(walls)}
    for stem in STEMS:
        estimate = np.concatenate([part[stem] for part in parts])
        figures[f"{stem}_sdr_gain_db"] = sdr(truth[stem], estimate) - sdr(truth[stem], mix)
        figures[f"{stem}_sdr_db"] = sdr(truth[stem], estimate)
    return {name: round(value, 2) for name, value in figures.items()}
