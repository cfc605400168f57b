"""Spreading tracks over workers, and bringing their stems home."""
