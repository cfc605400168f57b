"""Inputs, and for how long they and results are kept."""
