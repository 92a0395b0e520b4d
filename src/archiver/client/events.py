"""The reports of an operation of the client while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Events(Protocol):
    """Receives the reports. Threads may call it."""

    def update(self, phase: str, done: int, total: int | None = None) -> None:
        """Begin a *phase*, or say how many of its bytes or requests are done."""

    def advance(self, size_bytes: int) -> None:
        """So many more bytes are done."""

    def notice(self, sentence: str) -> None:
        """Something went wrong, and the operation goes on."""

    def kept(self, part: Path) -> None:
        """The operation failed, and *part* has the bytes for the next one."""


class Silent:
    """Implements Events, and drops them."""

    def update(self, phase: str, done: int, total: int | None = None) -> None: ...
    def advance(self, size_bytes: int) -> None: ...
    def notice(self, sentence: str) -> None: ...
    def kept(self, part: Path) -> None: ...
