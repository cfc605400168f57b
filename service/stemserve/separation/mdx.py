"""MDX-Net networks: from the lowest bins of a short-time spectrum to those of the voice.

A window of about 23 s is cut into chunks that lie end to end in the result; each is heard with
3840 samples more on either side, silence where the window ends, which are cut off afterwards.
On a CPU ONNX Runtime runs the network, in float32 always: in bfloat16 the error would grow to
−36 dB. On a GPU torch does (``onnx_graph``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn import functional

from stemserve.errors import PresetUnavailableError
from stemserve.separation.onnx_graph import OnnxNetwork, UnknownOperatorError, read_graph
from stemserve.separation.running import Running
from stemserve.separation.windows import Windows

FFT = 7680
HOP = 1024
BINS = 3072
FRAMES = 256
CHUNK = HOP * (FRAMES - 1)
TRIM = FFT // 2
KEPT = CHUNK - 2 * TRIM
WINDOW = 1_000_000

_log = logging.getLogger(__name__)

Spectral = Callable[[Tensor], Tensor]
"""Spectra [n, 4, bins, frames] → the same."""


class MdxModel:
    """A network from an ONNX file; its one source is called ``vocals``, whatever it gives."""

    sources: tuple[str, ...] = ("vocals",)

    def __init__(self, path: Path, running: Running) -> None:
        self._hann = torch.hann_window(FFT)
        self._network: OnnxNetwork | None = None
        if not running.on_cpu:
            try:
                self._network = OnnxNetwork(read_graph(path)).eval()
            except UnknownOperatorError as error:
                _log.warning("%s runs on the CPU: torch is not told of %s", path.name, error)
        self._hear = _with_torch(self._network, running) if self._network else _with_runtime(path)

    def windows(self, overlap: float) -> Windows:
        """The outer windows, whose outputs count alike."""
        return Windows(WINDOW, overlap, flat=True, filled=False)

    def pieces(self, window: Tensor) -> list[Tensor]:
        """The chunks of a window, each with what is cut off again."""
        count = -(-window.shape[-1] // KEPT)
        padded = functional.pad(window, (TRIM, count * KEPT - window.shape[-1] + TRIM))
        return [padded[:, at * KEPT : at * KEPT + CHUNK] for at in range(count)]

    def joined(self, outputs: Sequence[Tensor], samples: int) -> Tensor:
        """The chunks end to end."""
        return torch.cat([out[..., TRIM:-TRIM] for out in outputs], dim=-1)[..., :samples]

    def to(self, device: torch.device) -> None:
        """Move the weights, where torch runs the network."""
        if self._network is not None:
            self._network.to(device)

    def __call__(self, batch: Tensor) -> Tensor:
        """[n, 2, CHUNK] → float32 [n, 1, 2, CHUNK]."""
        hann = self._hann.to(batch.device)
        count = len(batch)
        spectra = torch.stft(
            batch.reshape(-1, CHUNK), FFT, HOP, window=hann, center=True, return_complex=True
        )[:, :BINS]
        parts = torch.view_as_real(spectra).permute(0, 3, 1, 2).reshape(count, 4, BINS, FRAMES)
        out = self._hear(parts).reshape(count * 2, 2, BINS, FRAMES).permute(0, 2, 3, 1)
        spectra = torch.view_as_complex(
            functional.pad(out.contiguous(), (0,) * 5 + (FFT // 2 + 1 - BINS,))
        )
        sound = torch.istft(spectra, FFT, HOP, window=hann, center=True)
        return sound.reshape(count, 1, 2, CHUNK)


def _with_torch(network: OnnxNetwork, running: Running) -> Spectral:
    def hear(spectra: Tensor) -> Tensor:
        return running.heard(network, spectra)

    return hear


def _with_runtime(path: Path) -> Spectral:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Threads that wait in a loop would take the cores from torch, and from other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory is the C library's, which keeps it (``running``), for the Demucs networks too.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors have no common base
        raise PresetUnavailableError(f"{path} cannot be run: {error}") from error
    shape = session.get_inputs()[0].shape
    if shape[1:] != [4, BINS, FRAMES]:
        raise PresetUnavailableError(
            f"{path} is of another model: it takes {shape}, not [n, 4, {BINS}, {FRAMES}]."
        )
    name = session.get_inputs()[0].name

    def hear(spectra: Tensor) -> Tensor:
        given = np.ascontiguousarray(spectra.cpu().numpy())
        return torch.from_numpy(session.run(None, {name: given})[0]).to(spectra.device)

    return hear
