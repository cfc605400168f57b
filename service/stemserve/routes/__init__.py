"""The calls of a worker, a module for each thing that they are about."""
