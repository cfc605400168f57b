"""Sound in and out, always in a stream: nothing here holds more of a track than a few seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Block = NDArray[np.float32]
"""A run of samples, float32 [frames, channels], full scale at ±1."""

Array = NDArray[Any]
