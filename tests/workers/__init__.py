"""Emulated workers: the true contract over real HTTP, of known speed, without any separation."""
