"""Where the networks' weights lie on this machine. None comes with the worker."""
