"""One worker over HTTP."""
