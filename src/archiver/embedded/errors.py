"""The one way in which an all-in-one run can fail to begin."""


class CannotServe(Exception):
    """A part cannot run here. The text says why, and what to do about it."""
