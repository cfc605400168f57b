"""The worker: serves separation jobs on one machine over HTTP."""
