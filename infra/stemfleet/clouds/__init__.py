"""Clouds: one adapter a module, all behind `base.Cloud`."""
