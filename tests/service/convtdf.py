"""MDX-Net networks with random weights: the ConvTDF architecture, written as an ONNX graph.

A U-net over spectra [batch, 4, bins, frames] that works on frames × bins. Each block is a few 3 × 3
convolutions, and to their result is added what two dense layers over the bins make of it; levels
are halved and doubled by strided convolutions; the ways across multiply.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """What makes a ConvTDF network large or small."""

    bins: int
    frames: int
    growth: int
    levels: int
    layers: int = 3
    narrowing: int = 8


TRUE_SIZE = Size(bins=3072, frames=256, growth=48, levels=5)
SMALL = Size(bins=3072, frames=256, growth=2, levels=1, layers=1, narrowing=96)


@dataclass
class _Graph:
    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], weights: list[Floats], **settings: Any) -> str:  # noqa: ANN401
        """A node behind ``inputs``; the name of its output."""
        out = f"x{len(self.nodes)}"
        names = [f"{out}.w{number}" for number in range(len(weights))]
        for name, weight in zip(names, weights, strict=True):
            self.weights.append(numpy_helper.from_array(weight.astype(np.float32), name))
        self.nodes.append(helper.make_node(kind, [*inputs, *names], [out], **settings))
        return out

    def draw(self, *shape: int, fan: int) -> Floats:
        drawn: Floats = (self.random.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)
        return drawn

    def conv(self, x: str, fro: int, to: int, size: int, stride: int = 1) -> str:
        pad = (size - 1) // 2 if stride == 1 else 0
        weights = [self.draw(to, fro, size, size, fan=fro * size * size), self.draw(to, fan=200)]
        return self.add(
            "Conv",
            [x],
            weights,
            kernel_shape=[size, size],
            strides=[stride, stride],
            pads=[pad] * 4,
            dilations=[1, 1],
            group=1,
        )

    def up(self, x: str, fro: int, to: int) -> str:
        weights = [self.draw(fro, to, 2, 2, fan=fro), self.draw(to, fan=200)]
        x = self.add("ConvTranspose", [x], weights, kernel_shape=[2, 2], strides=[2, 2])
        return self.relu(self.norm(x, to))

    def norm(self, x: str, channels: int) -> str:
        near_one = 1 + 0.1 * self.random.standard_normal((2, channels))
        near_zero = 0.1 * self.random.standard_normal((2, channels))
        weights = [near_one[0], near_zero[0], near_zero[1], np.abs(near_one[1])]
        return self.add("BatchNormalization", [x], weights, epsilon=1e-5)

    def relu(self, x: str) -> str:
        return self.add("Relu", [x], [])

    def dense(self, x: str, channels: int, fro: int, to: int) -> str:
        x = self.add("MatMul", [x], [self.draw(fro, to, fan=fro)])
        return self.relu(self.norm(x, channels))

    def block(self, x: str, channels: int, bins: int, size: Size) -> str:
        for _ in range(size.layers):
            x = self.relu(self.conv(x, channels, channels, 3))
        narrow = self.dense(x, channels, bins, bins // size.narrowing)
        return self.add("Add", [x, self.dense(narrow, channels, bins // size.narrowing, bins)], [])


def convtdf(size: Size = SMALL, seed: int = 0, loudness: float = 0.1) -> bytes:
    """An ONNX file: [batch, 4, bins, frames] in and out.

    The last layer is scaled down by ``loudness``, for what comes out is to be about as loud as
    what goes in.
    """
    graph = _Graph(np.random.default_rng(seed))
    x = graph.relu(graph.conv("input", 4, size.growth, 1))
    x = graph.add("Transpose", [x], [], perm=[0, 1, 3, 2])
    channels, bins = size.growth, size.bins
    across: list[str] = []
    for _ in range(size.levels):
        x = graph.block(x, channels, bins, size)
        across.append(x)
        x = graph.relu(graph.conv(x, channels, channels + size.growth, 2, stride=2))
        channels, bins = channels + size.growth, bins // 2
    x = graph.block(x, channels, bins, size)
    while across:
        x = graph.up(x, channels, channels - size.growth)
        channels, bins = channels - size.growth, bins * 2
        x = graph.add("Mul", [x, across.pop()], [])
        x = graph.block(x, channels, bins, size)
    x = graph.add("Transpose", [x], [], perm=[0, 1, 3, 2])
    weights = [graph.draw(4, channels, 1, 1, fan=channels) * np.float32(loudness)]
    graph.weights.append(numpy_helper.from_array(weights[0], "last"))
    graph.nodes.append(helper.make_node("Conv", [x, "last"], ["output"], kernel_shape=[1, 1]))
    shape: list[str | int | None] = ["batch", 4, size.bins, size.frames]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "convtdf",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content
