"""Reading a Demucs checkpoint without running what a pickle could hold.

The file names its network's class, how to build it, and its state. torch's restricted unpickler
is told of those classes alone; any other name in the file is refused.
"""

from __future__ import annotations

import pickle
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from demucs.states import load_model

from stemserve.errors import PresetUnavailableError


def load_network(path: Path) -> HTDemucs | HDemucs:
    """The network in a checkpoint, on the CPU, ready to infer.

    Raises:
        PresetUnavailableError: the file is no Demucs checkpoint, or holds what it should not.
    """
    try:
        with torch.serialization.safe_globals([HTDemucs, HDemucs, Fraction]):
            package: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        with warnings.catch_warnings():
            # Settings of training that later versions of the class no longer take.
            warnings.simplefilter("ignore")
            network: HTDemucs | HDemucs = load_model(package)  # type: ignore[no-untyped-call]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError) as error:
        raise PresetUnavailableError(
            f"{path} is no Demucs checkpoint that can be loaded safely: {error}"
        ) from error
    network.eval()
    return network
