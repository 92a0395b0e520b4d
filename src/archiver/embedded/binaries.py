"""Finds the programs of the embedded servers, which are installed from wheels."""

import shutil
import sys
from pathlib import Path

from archiver.embedded.errors import CannotServe


def find_program(name: str) -> Path:
    """Return the path of a program: beside this Python, where wheels install it, or on the PATH.

    Raises:
        CannotServe: It is in neither place.
    """
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    if found := shutil.which(name):
        return Path(found)
    raise CannotServe(f"{name} is not installed: pip install 'archiver[embedded]'")
