"""Checks the paths of a commit's tree, as git lists them.

Git stores any bytes as the name of an entry, and only warns of most when it receives them.
"""

import re

from archiver.errors import NotPackable, UnsafeMember
from archiver.names import display_path

PATH_MAX_BYTES = 4095
"""Length of a path: Linux's PATH_MAX without the final NUL. Bounds the depth of folders, too."""

_UNSAFE = re.compile(rb"/(?:\.{0,2}|(?:\.git|git~1)[. ]*(?:[:\\][^/]*)?)/", re.IGNORECASE)
"""Names that are a folder itself, or the data of a git repository: to Windows also with dots and
blanks at the end, with the name of a stream, or in the short form."""

_IGNORED_BY_MACOS = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]".encode().decode())
"""Characters that HFS+ leaves out of names."""

_UNSAFE_LINK = re.compile(rb"/\.gitmodules/", re.IGNORECASE)
"""Git itself refuses these, in ``verify_path``."""


class PathCheck:
    """Takes the paths of all files and folders of a tree, in the order in which git lists them.

    Holds the last path, and the files whose path begins it.
    """

    def __init__(self) -> None:
        self._last = b""
        self._files: list[bytes] = []

    def add(self, path: bytes, *, is_folder: bool, is_link: bool) -> None:
        """Take the next path.

        Raises:
            UnsafeMember: No file can have it, or it leads out of the tree, or into the data of a
                git repository.
            NotPackable: Another entry has it, or it is not in git's order.
        """
        if len(path) > PATH_MAX_BYTES:
            raise UnsafeMember(
                f"the path {display_path(path)} is longer than {PATH_MAX_BYTES} bytes"
            )
        if _is_unsafe(path, is_link=is_link):
            raise UnsafeMember(f"the commit has {display_path(path)}, which git refuses to write")
        key = path + b"/" if is_folder else path
        if key <= self._last or self._is_below_file(key):
            raise NotPackable(
                f"the commit has a malformed tree: {display_path(path)} has the name of another "
                "entry, or is not in the order of git"
            )
        self._last = key
        if not is_folder:
            self._files.append(path)

    def _is_below_file(self, key: bytes) -> bool:
        """Return whether *key* is a folder, or in a folder, that has the path of a file.

        Of the files so far, only those can have that path that *key* begins with: others, such as
        ``a.b`` between ``a`` and ``a/``, may come between the two.
        """
        while self._files and not key.startswith(self._files[-1]):
            self._files.pop()
        if not self._files:
            return False
        length = len(self._files[-1])
        return key[length : length + 1] == b"/"


def _is_unsafe(path: bytes, *, is_link: bool) -> bool:
    segments = b"/" + path + b"/"
    if not path.isascii():
        text = segments.decode(errors="replace")
        segments = _IGNORED_BY_MACOS.sub("", text).encode()
    if b"/." not in segments and b"//" not in segments and b"~1" not in segments:
        return False  # the usual case
    return bool(_UNSAFE.search(segments) or (is_link and _UNSAFE_LINK.search(segments)))
