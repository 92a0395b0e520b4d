"""Maps names that some system treats as equal to one form."""

import re
from unicodedata import combining, normalize

CACHE_MAX = 1 << 16
"""Number of characters whose folded form is cached."""

_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
"""Unicode's default-ignorable characters. Names that differ only in these are equal on ext4 with
``casefold``. HFS+ ignores many of them."""


def fold_name(name: bytes) -> bytes:
    """Return the same form for all names that some system treats as equal.

    Removes letter case, combining marks and invisible characters, and replaces backslashes by
    slashes. Works per character, since the time to normalize a whole name grows with the square of
    its length.
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
        if len(self) < CACHE_MAX:
            self[point] = folded
        return folded


_FOLDS = _Folds()
