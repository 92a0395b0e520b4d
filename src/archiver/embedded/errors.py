"""Why `archiver serve` cannot start."""


class CannotServe(Exception):
    """A program cannot run here. The text gives the reason and the remedy."""
