"""Archiver: the address of a repository archive in, the place of the same archive in S3 out."""

__version__: str


def __getattr__(name: str) -> str:
    """Return the version, which takes 70 ms to look up: a conversion starts in twice that time."""
    if name != "__version__":
        raise AttributeError(name)
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version("archiver")
