"""MDX networks: the same graph by ONNX Runtime and by torch, and files that are no such network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from stemserve.errors import PresetUnavailableError
from stemserve.separation.mdx import MdxModel
from stemserve.separation.onnx_graph import OnnxNetwork, UnknownOperatorError, read_graph
from stemserve.separation.running import Running

from tests.service.convtdf import SMALL, Size, convtdf

CPU = Running(torch.device("cpu"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small network of two levels, in a file."""
    place = tmp_path / "small.onnx"
    place.write_bytes(convtdf(Size(bins=64, frames=16, growth=4, levels=2)))
    return place


def test_torch_hears_what_onnx_runtime_hears(path: Path) -> None:
    spectra = np.random.default_rng(0).normal(0, 1, (2, 4, 64, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    theirs = session.run(None, {"input": spectra})[0]
    with torch.inference_mode():
        ours = OnnxNetwork(read_graph(path))(torch.from_numpy(spectra)).numpy()
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_an_operator_that_is_not_known_is_told_before_anything_runs(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node.insert(0, helper.make_node("Erf", ["input"], ["unused"]))
    with pytest.raises(UnknownOperatorError, match="Erf"):
        OnnxNetwork(model.graph)


@pytest.mark.parametrize("content", [b"", b"no network at all"])
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(PresetUnavailableError, match=r"broken\.onnx"):
        MdxModel(path, CPU)
    with pytest.raises(PresetUnavailableError, match=r"broken\.onnx"):
        read_graph(path)


def test_a_network_of_another_size_is_refused(path: Path) -> None:
    with pytest.raises(PresetUnavailableError, match="another model"):
        MdxModel(path, CPU)


def test_chunks_lie_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "whole.onnx"
    path.write_bytes(convtdf(SMALL))
    model = MdxModel(path, CPU)
    for samples in (1, 253_440, 253_441, 600_000):
        window = torch.randn(2, samples)
        pieces = model.pieces(window)
        assert {piece.shape for piece in pieces} == {(2, 261_120)}
        assert len(pieces) == -(-samples // 253_440)
        torch.testing.assert_close(model.joined(pieces, samples), window)
