"""Pulling songs apart: the presets, and the process that runs them beside the API."""
