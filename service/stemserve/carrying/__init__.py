"""Inputs from, and results to, where a caller says."""
