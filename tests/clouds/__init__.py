"""The clouds, emulated on loopback: strict, faulty as told, on a clock that can be driven."""
