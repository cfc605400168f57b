"""A run on machines of its own: foreseen, ordered, rented, used and ended."""
