"""A block from its start to its end: it waits for its calls."""
