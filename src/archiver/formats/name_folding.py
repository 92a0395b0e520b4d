"""Folds names that some system takes for one: case, marks, invisible characters, backslashes."""

import re
from unicodedata import combining, normalize

FOLDS_MAX = 1 << 16
"""Characters whose folded form is remembered."""

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Unicode's default-ignorable characters. Names that differ in these alone are one name to ext4
with ``casefold``, and many of them to HFS+."""


def fold(name: bytes) -> bytes:
    """Return what *name* has in common with all names that some system takes for the same.

    That is its visible letters without their case and marks, character by character, since to
    normalise a whole name takes a time that grows with the square of its length. Backslashes
    become slashes.
    """
    name = name.replace(b"\\", b"/")
    if name.isascii():
        return name.lower()
    return name.decode(errors="replace").translate(_FOLDS).encode()


class _Folds(dict[int, str]):
    def __missing__(self, point: int) -> str:
        bare = normalize("NFD", normalize("NFD", chr(point)).casefold())
        folded = "".join(character for character in bare if not combining(character))
        folded = _IGNORABLE.sub("", folded)
        if len(self) < FOLDS_MAX:
            self[point] = folded
        return folded


_FOLDS = _Folds()
