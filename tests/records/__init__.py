"""Records that one release writes and another reads."""
