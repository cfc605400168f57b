"""How fast, how exact and how large the separation is, beside the recipe written down plainly.

Weights are random, of the true sizes; both sides hear the same noise, each in a process of its own
that loads its networks first, which counts. The plain side is ``tests.service.plain`` and demucs'
own ``apply_model``, in float32. A preset that is another recipe than the plain one (less overlap)
has no error to show.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from stemserve.audio import Block
from stemserve.separation.presets import PRESETS

from tests.service.networks import make_weights

RATE = 44100
VOCALS = ("vocals", "instrumental")
FOUR = ("vocals", "drums", "bass", "other")
_SIGNATURES = {"htdemucs": "955717e8", "htdemucs_6s": "5c90dfd2", "hdemucs_mmi": "75fc33f5"}


@dataclass(frozen=True)
class Run:
    """One side's work: ``precision`` ``plain``, or one of the worker's."""

    preset: str
    stems: tuple[str, ...]
    precision: str
    device: str
    place: str
    """The directory of weights, sound and output."""


@dataclass(frozen=True)
class Measured:
    """What a side took; ``peak_rss`` in bytes. On a machine that does other things besides, the
    time that its processor gave to a side says more than the clock."""

    seconds: float
    cpu_seconds: float
    peak_rss: int


def add_arguments(parser: ArgumentParser) -> None:
    """What to run; the whole takes about half an hour on two cores.

    The plain side holds all windows at once: 22 GB for 30 s of two stems, and more for four.
    """
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--presets", default="ensemble,ensemble-fast")
    parser.add_argument("--stems", default="2,4")
    parser.add_argument("--precisions", default="exact,fast")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def measure(
    seconds: float, presets: str, stems: str, precisions: str, device: str
) -> dict[str, object]:
    """A row for each preset, kind of stems (2: vocals and instrumental, 4) and precision."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for preset in {_reference(preset) for preset in presets.split(",")}:
            make_weights(Path(place), PRESETS[preset], true_size=True)
        np.save(Path(place, "sound.npy"), _sound(round(seconds * RATE)))
        for kind in stems.split(","):
            wanted = VOCALS if kind == "2" else FOUR
            plains: dict[str, tuple[Measured, dict[str, Block]]] = {}
            for preset in presets.split(","):
                reference = _reference(preset)
                if reference not in plains:
                    plains[reference] = _apart(Run(reference, wanted, "plain", device, place))
                for precision in precisions.split(","):
                    run = Run(preset, wanted, precision, device, place)
                    rows.append(_row(run, seconds, *plains[reference], *_apart(run)))
                    print(rows[-1], file=sys.stderr, flush=True)
    return {"presets": rows, "seconds": seconds, "cores": os.cpu_count()}


def _row(
    run: Run,
    seconds: float,
    plain: Measured,
    theirs: dict[str, Block],
    ours: Measured,
    outputs: dict[str, Block],
) -> dict[str, object]:
    same = _reference(run.preset) == run.preset
    errors = {stem: outputs[stem] - theirs[stem] for stem in run.stems}
    worst = max(float(np.abs(error).max()) for error in errors.values())
    relative = max(float(np.std(e) / np.std(theirs[stem])) for stem, e in errors.items())
    return {
        "preset": run.preset,
        "stems": list(run.stems),
        "precision": run.precision,
        "device": run.device,
        "speedup": round(plain.seconds / ours.seconds, 2),
        "cpu_speedup": round(plain.cpu_seconds / ours.cpu_seconds, 2),
        "max_abs_diff": worst if same else None,
        "error_db": round(20 * math.log10(relative + 1e-12), 1) if same else None,
        "peak_rss_ratio": round(ours.peak_rss / plain.peak_rss, 2),
        "peak_rss_mb": round(ours.peak_rss / 1e6),
        "realtime": round(seconds / ours.seconds, 3),
        "plain_realtime": round(seconds / plain.seconds, 3),
    }


def _reference(preset: str) -> str:
    return "ensemble" if preset == "ensemble-fast" else preset


def _sound(frames: int) -> Block:
    """Noise with the rough spectrum of music, swelling, at the loudness of music."""
    noise = np.random.default_rng(0).standard_normal((frames, 2))
    spectrum = np.fft.rfft(noise, axis=0)
    spectrum /= np.sqrt(1 + np.arange(len(spectrum)) * RATE / frames / 200)[:, None]
    sound = np.fft.irfft(spectrum, n=frames, axis=0)
    sound *= (1 + 0.5 * np.sin(np.arange(frames) / RATE * 3))[:, None]
    scaled: Block = (0.1 * sound / sound.std()).astype(np.float32)
    return scaled


def _apart(run: Run) -> tuple[Measured, dict[str, Block]]:
    """Do a run in a process of its own."""
    environment = os.environ | {
        "STEMSERVE_WEIGHTS": run.place,
        "STEMSERVE_PRECISION": run.precision,
        "STEMSERVE_DEVICE": run.device,
    }
    command = [sys.executable, "-m", "tests.bench.separation", json.dumps(asdict(run))]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    outputs = dict(np.load(Path(run.place, "stems.npz")))
    return Measured(**json.loads(answer.stdout.splitlines()[-1])), outputs


def _child(run: Run) -> Measured:
    place = Path(run.place)
    sound: Block = np.load(place / "sound.npy")
    started, worked = perf_counter(), process_time()
    stems = _plainly(run, place, sound) if run.precision == "plain" else _ours(run, sound)
    seconds, cpu_seconds = perf_counter() - started, process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.savez(place / "stems.npz", allow_pickle=False, **{s: stems[s] for s in run.stems})
    return Measured(seconds, cpu_seconds, peak * (1 if sys.platform == "darwin" else 1024))


def _plainly(run: Run, place: Path, sound: Block) -> dict[str, Block]:
    import torch
    from demucs.apply import BagOfModels, apply_model

    from tests.service.networks import FT
    from tests.service.plain import Plain, demucs

    if run.preset.startswith("ensemble"):
        plain = Plain(place, single=run.preset == "ensemble-single", four="drums" in run.stems)
        return plain.separate(sound)
    model = (
        BagOfModels([demucs(place, signature) for signature in FT.values()], np.eye(4).tolist())
        if run.preset == "htdemucs_ft"
        else demucs(place, _SIGNATURES[run.preset])
    )
    mix = torch.from_numpy(sound.T.copy())
    with torch.no_grad():
        out = apply_model(model, mix[None], shifts=0, split=True, overlap=0.25, device=run.device)[
            0
        ]
    stems = {name: out[at].numpy().T for at, name in enumerate(model.sources)}
    return stems | {"instrumental": sound - stems["vocals"]}


def _ours(run: Run, sound: Block) -> dict[str, Block]:
    from stemserve.separation.separators import open_separator

    blocks = (sound[at : at + 65536] for at in range(0, len(sound), 65536))
    parts = list(open_separator(PRESETS[run.preset])(blocks, RATE, run.stems))
    return {stem: np.concatenate([part[stem] for part in parts]) for stem in run.stems}


if __name__ == "__main__":
    fields = json.loads(sys.argv[1])
    print(json.dumps(asdict(_child(Run(**fields | {"stems": tuple(fields["stems"])})))))
