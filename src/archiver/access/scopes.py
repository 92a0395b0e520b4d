"""The three things that a client may do."""

from enum import IntEnum
from typing import Self


class Scope(IntEnum):
    """A scope includes those before it: clients that may create archives may read them."""

    NONE = 0
    READ = 1
    """Download stored archives, and see the status of tasks."""

    CREATE = 2
    """Let missing archives be built."""

    ADMIN = 3
    """Operate Archiver."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the scope with this name in lower case. Raises ValueError."""
        for scope in cls:
            if scope.label == text:
                return scope
        raise ValueError(f"no scope {text!r}")

    @property
    def label(self) -> str:
        """The name in settings, messages and the log."""
        return self.name.lower()
