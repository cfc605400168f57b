"""Running jobs on the separation process, and telling those who follow them."""
