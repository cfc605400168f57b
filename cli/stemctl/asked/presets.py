"""The presets there are, and what each costs: known without asking a worker, or importing one.

A worker tells the same of itself, but for a quote, or a shell that completes, there is none.
"""

from __future__ import annotations

COSTS: dict[str, tuple[float, float]] = {
    "ensemble": (28.5, 9.0),
    "ensemble-single": (25.9, 6.4),
    "ensemble-fast": (9.6, 3.8),
    "htdemucs_ft": (4.0, 1.0),
    "htdemucs": (1.0, 1.0),
    "htdemucs_6s": (0.8, 0.8),
    "hdemucs_mmi": (1.0, 1.0),
    "kim_vocal_2": (1.4, 1.4),
    "center": (0.0, 0.0),
}
"""By preset, in times of `htdemucs`: of all stems, and of vocals and instrumental alone."""
