"""Running an ONNX graph with torch, for GPUs: in torch's own memory, and in half precision.

ONNX Runtime's GPU build brings CUDA libraries and an allocator of its own, so that what is out of
memory in one is not to be had from the other.
Only the operators that MDX networks are made of are known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from stemserve.errors import PresetUnavailableError

Settings = dict[str, Any]
Operator = Callable[[list[Tensor], Settings], Tensor]


class UnknownOperatorError(Exception):
    """The graph holds an operator, or a variant of one, that is not among the known."""


class OnnxNetwork(nn.Module):
    """A graph of one input and one output, its weights as buffers."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        """Translate.

        Raises:
            UnknownOperatorError: the graph is made of more than is known here.
        """
        super().__init__()
        known = {weight.name: f"weight_{at}" for at, weight in enumerate(graph.initializer)}
        for weight in graph.initializer:
            value = torch.from_numpy(numpy_helper.to_array(weight).copy())
            self.register_buffer(known[weight.name], value)
        self._weights = known
        self._input = next(value.name for value in graph.input if value.name not in known)
        self._output = graph.output[0].name
        self._steps = [_step(node) for node in graph.node]
        self._last_use = {
            name: at for at, node in enumerate(graph.node) for name in (*node.input, *node.output)
        }

    def forward(self, spectra: Tensor) -> Tensor:
        """The graph's output; what nothing needs any more is let go on the way."""
        values = {self._input: spectra}
        for at, (operator, inputs, output, settings) in enumerate(self._steps):
            given = [
                getattr(self, self._weights[name]) if name in self._weights else values[name]
                for name in inputs
            ]
            values[output] = operator(given, settings)
            del given
            for name in inputs:
                if self._last_use[name] == at and name != self._output:
                    values.pop(name, None)
        return values[self._output]


def read_graph(path: Path) -> onnx.GraphProto:
    """The graph in a file.

    Raises:
        PresetUnavailableError: it is no ONNX file.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own error is no part of onnx's interface
        raise PresetUnavailableError(f"{path} is no ONNX file: {error}") from error
    if not model.graph.node:
        raise PresetUnavailableError(f"{path} is no ONNX file: it holds no graph")
    return model.graph


def _step(node: onnx.NodeProto) -> tuple[Operator, list[str], str, Settings]:
    if node.op_type not in _OPERATORS or len(node.output) != 1 or node.domain:
        raise UnknownOperatorError(node.op_type)
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if settings.pop("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in settings:
        raise UnknownOperatorError(f"{node.op_type} with padding of its own choice")
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right):
        raise UnknownOperatorError(f"{node.op_type} with uneven padding")
    settings["padding"] = (top, left)
    return _OPERATORS[node.op_type], list(node.input), node.output[0], settings


def _conv(inputs: list[Tensor], settings: Settings) -> Tensor:
    x, weight, *bias = inputs
    return torch.conv2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=settings.get("strides", 1),
        padding=settings["padding"],
        dilation=settings.get("dilations", 1),
        groups=settings.get("group", 1),
    )


def _conv_transpose(inputs: list[Tensor], settings: Settings) -> Tensor:
    x, weight, *bias = inputs
    return torch.conv_transpose2d(
        x,
        weight,
        bias[0] if bias else None,
        stride=settings.get("strides", 1),
        padding=settings["padding"],
        output_padding=settings.get("output_padding", 0),
        groups=settings.get("group", 1),
        dilation=settings.get("dilations", 1),
    )


def _batch_norm(inputs: list[Tensor], settings: Settings) -> Tensor:
    x, scale, bias, mean, variance = inputs
    factor = scale / torch.sqrt(variance + settings.get("epsilon", 1e-5))
    shape = (1, -1) + (1,) * (x.dim() - 2)
    moved = (bias - mean * factor).to(x.dtype).view(shape)
    return torch.addcmul(moved, x, factor.to(x.dtype).view(shape))


def _transpose(inputs: list[Tensor], settings: Settings) -> Tensor:
    return inputs[0].permute(*settings["perm"])


_OPERATORS: dict[str, Operator] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "Transpose": _transpose,
}
