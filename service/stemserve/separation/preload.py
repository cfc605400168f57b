"""Loading a preset before the first task, so that a worker is ready only when it can begin at once.

On the way it tells what the log of a start should: the GPU, and whether torch can use it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator

from stemserve.errors import StemserveError
from stemserve.schema import WeightsHere
from stemserve.separation.device import CPU, device_name, gpu
from stemserve.separation.presets import PRESETS, described, find_preset
from stemserve.separation.versions import versions, versions_beside
from stemserve.task import Started
from stemserve.weights import records

_log = logging.getLogger(__name__)


def started(preload: str | None) -> Started:
    """The process's first event, once the preset ``preload`` is loaded, or is told not to be."""
    device, presets = device_name(), described()
    if preload is not None:
        _log.info("no GPU is seen here" if device == CPU else f"GPU: {device}")
        for at, preset in enumerate(presets):
            if preset.name == preload and preset.available and (fault := _fault(preload, device)):
                presets[at] = preset.model_copy(update={"available": False, "lacks": fault})
    return Started(
        device=device,
        presets=presets,
        gpu=gpu(),  # now, with what the preset has taken of it
        weights=list(_weights()),
        versions=versions() | versions_beside(),
    )


def _weights() -> Iterator[WeightsHere]:
    """What is on the disk of all presets' weights."""
    for file in dict.fromkeys(file for recipe in PRESETS.values() for file in recipe.weights):
        path = file.find()
        if path is not None:
            digest = records.recorded(path)
            yield WeightsHere(file=file.published, sha256=digest and digest[:8])


def _fault(name: str, device: str) -> str | None:
    """Load a preset; why it cannot be. The process lives on, for the others."""
    from stemserve.separation.separators import how_it_runs, open_separator

    began = time.monotonic()
    try:
        recipe = find_preset(name)
        how = how_it_runs(recipe)
        if how is not None:
            if device != CPU and how.startswith(f"on {CPU}"):
                _log.warning("torch cannot use the GPU: is its driver too old for torch's CUDA?")
            _log.info("loading %s, to run %s", name, how)
        open_separator(recipe, at_once=True)
    except StemserveError as error:
        fault = str(error)
    except Exception as error:  # noqa: BLE001
        traceback.print_exc(file=sys.stderr)
        fault = f"loading it failed unexpectedly ({type(error).__name__}: {error})"
    else:
        _log.info("%s is loaded, in %.1f s", name, time.monotonic() - began)
        return None
    _log.error("%s cannot be served: %s", name, fault)
    return fault
