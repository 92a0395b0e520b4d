"""The system's limit of open files."""

import resource
import sys


def raise_file_limit() -> None:
    """Raise the limit of open files as far as the system allows, for this process and children."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def file_limit() -> int:
    """Return how many files this process may have open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else files


def most_files() -> int:
    """Return how many files a process may have open at most, once it has raised its limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if most == resource.RLIM_INFINITY else most
