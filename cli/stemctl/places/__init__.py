"""Where stems go: the output folder, or a bucket."""
