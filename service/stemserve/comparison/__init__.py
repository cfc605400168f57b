"""Presets side by side: what each makes of the same seconds, as one page to look at and hear."""
