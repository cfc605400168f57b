"""The Pulumi engine that stemctl and the user's shell work with: found, or installed."""

from stemctl.engine.find import Engine, find_engine

__all__ = ["Engine", "find_engine"]
