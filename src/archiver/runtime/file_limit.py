"""The system's limit of open files."""

import resource


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows, for this process and children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
