"""The recipe, written down plainly: whole tracks, one network after the other, as it is described.

What the worker's separation is held against, for its numbers, its speed and its memory. It runs
``demucs.apply.apply_model`` and ONNX Runtime as they come.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from demucs.apply import BagOfModels, Model, apply_model
from demucs.states import load_model
from stemserve.audio import Block
from torch import Tensor
from torch.nn import functional

from tests.service.networks import FT, HT, MMI, SIX

FT_OVERLAP = 0.5
OVERLAP = 0.6
DRUMS, BASS, OTHER, VOCALS = range(4)
WEIGHTS = {DRUMS: (18, 2, 4, 9), BASS: (19, 4, 5, 8), OTHER: (14, 2, 5, 10)}


class Plain:
    """The models of a recipe, all loaded, in float32 on the CPU."""

    def __init__(self, place: Path, *, single: bool = False, four: bool = True) -> None:
        self._place, self._single = place, single
        names = ["Kim_Vocal_2"] if single else ["Kim_Vocal_2", "Kim_Inst"]
        self.mdx = {
            name: onnxruntime.InferenceSession(
                next(place.glob(f"{name}*.onnx")), providers=["CPUExecutionProvider"]
            )
            for name in names
        }
        self.vocals = demucs(place, FT["vocals"])
        self.band: list[tuple[BagOfModels | Model, float]] = []
        if four:
            bag = BagOfModels([demucs(place, s) for s in FT.values()], np.eye(4).tolist())
            self.band.append((bag, FT_OVERLAP))
            self.band += [(demucs(place, s), OVERLAP) for s in (HT, SIX, MMI)]

    def separate(self, sound: Block, *, window: int = 1_000_000) -> dict[str, Block]:
        """All stems of a stereo sound at 44.1 kHz, [samples, 2] each."""
        with torch.no_grad():
            mix = torch.from_numpy(sound.T.copy())
            v_d = both_polarities(self.vocals, mix, OVERLAP)[VOCALS]
            v_k = mdx(self.mdx["Kim_Vocal_2"], mix, OVERLAP, window)
            if self._single:
                vocals = (6 * v_k + v_d) / 7
            else:
                v_i = mix - -mdx(self.mdx["Kim_Inst"], -mix, OVERLAP, window)
                vocals = (12 * v_k + 8 * v_i + 3 * v_d) / 23
            stems = {"vocals": vocals, "instrumental": mix - vocals}
            if self.band:
                stems |= self._band(mix, vocals)
        return {name: stem.numpy().T for name, stem in stems.items()}

    def _band(self, mix: Tensor, vocals: Tensor) -> dict[str, Tensor]:
        answers = []
        for model, overlap in self.band:
            out = both_polarities(model, mix - vocals, overlap)
            if len(out) == 6:
                out[OTHER] += out[4] + out[5]
            answers.append(out)
        d, b, o = (
            sum(weight * out[source] for weight, out in zip(weights, answers, strict=True))
            / sum(weights)
            for source, weights in WEIGHTS.items()
        )
        drums = ((mix - vocals - b - o).clip(-1, 1) + 2 * d) / 3
        bass = ((mix - vocals - d - o).clip(-1, 1) + 2 * b) / 3
        other = mix - vocals - bass - drums
        drums = mix - vocals - bass - other
        bass = mix - vocals - drums - other
        return {"drums": drums, "bass": bass, "other": other}


def demucs(place: Path, signature: str) -> Model:
    """A Demucs network from its checkpoint."""
    package = torch.load(next(place.glob(f"{signature}-*.th")), weights_only=False)
    network: Model = load_model(package)  # type: ignore[no-untyped-call]
    network.eval()
    return network


def both_polarities(model: BagOfModels | Model, sound: Tensor, overlap: float) -> Tensor:
    """Half the difference of the answers to a sound [2, samples] and to its negative."""
    straight = apply_model(model, sound[None], shifts=0, split=True, overlap=overlap)[0]
    turned = apply_model(model, -sound[None], shifts=0, split=True, overlap=overlap)[0]
    half: Tensor = 0.5 * (straight - turned)
    return half


def mdx(session: onnxruntime.InferenceSession, mix: Tensor, overlap: float, window: int) -> Tensor:
    """An MDX network's answer to a sound [2, samples]: the mean over outer windows."""
    samples = mix.shape[-1]
    total, count = torch.zeros_like(mix), torch.zeros(samples)
    for start in range(0, samples, int(window * (1 - overlap))):
        part = mix[:, start : start + window]
        total[:, start : start + window] += outer_window(session, part)
        count[start : start + window] += 1
    return total / count


def outer_window(session: onnxruntime.InferenceSession, part: Tensor) -> Tensor:
    """The answer to one outer window, its chunks in one batch."""
    fft, hop, bins = 7680, 1024, 3072
    chunk = hop * 255
    trim = fft // 2
    kept = chunk - 2 * trim
    samples = part.shape[-1]
    silence = kept - samples % kept
    padded = torch.cat([torch.zeros(2, trim), part, torch.zeros(2, silence + trim)], dim=1)
    starts = range(0, samples + silence, kept)
    waves = torch.stack([padded[:, at : at + chunk] for at in starts if at < samples])
    hann = torch.hann_window(fft, periodic=True)
    spectra = torch.stft(
        waves.reshape(-1, chunk), fft, hop, window=hann, center=True, return_complex=True
    )
    real = torch.view_as_real(spectra).permute(0, 3, 1, 2).reshape(-1, 4, fft // 2 + 1, 256)
    heard = torch.from_numpy(session.run(None, {"input": real[:, :, :bins].numpy()})[0])
    heard = functional.pad(heard, (0, 0, 0, fft // 2 + 1 - bins))
    pairs = heard.reshape(-1, 2, fft // 2 + 1, 256).permute(0, 2, 3, 1).contiguous()
    waves = torch.istft(torch.view_as_complex(pairs), fft, hop, window=hann, center=True)
    waves = waves.reshape(-1, 2, chunk)[:, :, trim:-trim]
    return waves.transpose(0, 1).reshape(2, -1)[:, :samples]
