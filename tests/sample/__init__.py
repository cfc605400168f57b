"""The sample song and its true stems, and how they were made."""

from __future__ import annotations

from pathlib import Path

PLACE = Path(__file__).parent
SONG = PLACE / "song.flac"
STEMS = {name: PLACE / f"{name}.opus" for name in ("vocals", "drums", "bass", "other")}
"""The four whose sum is the song, sample for sample; at 48 kHz, as Opus always is."""
