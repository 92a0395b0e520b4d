"""Requirements on the names of an archive's members, in any format."""

from archiver import names
from archiver.errors import UnsafeMember, WrongRoot
from archiver.model import Archive
from archiver.ports.source import IdentityCheck

IDENTITY_MAX_BYTES = 64 * 1024
"""How much of the member that names the node is passed to the identity check."""

NAME_MAX_BYTES = 4095
"""Maximum length of a member's name, root included: Linux's PATH_MAX without the final NUL."""

SPECIAL_BITS = 0o7000
"""The set-uid, set-gid and sticky bits of a mode. Neither Mercurial nor git tracks them."""


_NO_NAME = frozenset("/\\\0")


class ArchiveTree:
    """The part of a repository in *archive*, packed below the folder *root*.

    The member that *identity* checks is the first file. A later member of that name is a file of
    the repository. Raises WrongRoot unless the root is the name of a folder.
    """

    def __init__(self, *, archive: Archive, root: str, identity: IdentityCheck | None) -> None:
        if root in {"", ".", ".."} or not _NO_NAME.isdisjoint(root):
            raise WrongRoot("the archive has no root directory")
        self.root = root
        self._root = root.encode()
        self._identity = identity
        self._identity_member = f"{root}/".encode() + identity.member if identity else None
        self._top = (f"{root}/{archive.subdir}" if archive.subdir else root).encode()
        self._below = self._top + b"/"
        self._last: bytes | None = None

    @property
    def last_file(self) -> bytes:
        """The path of the last recorded file, relative to the root; empty before the first file."""
        return (self._last or b"").removeprefix(self._root + b"/")

    def record_file(self, name: bytes) -> bool:
        """Record that the next file has this name; return whether it names the node."""
        if self._last is None and name == self._identity_member:
            self._last = b""
            return True
        self._last = name
        return False

    def repository_path(self, name: bytes) -> bytes:
        """Return the path in the repository of a member with a valid *name*; empty for the root."""
        return name[len(self._root) + 1 :].rstrip(b"/")

    def require_valid_name(self, name: bytes) -> None:
        """Return if *name* is the root or subdir, or a normalized path below it.

        Raises:
            WrongRoot: It is outside.
            UnsafeMember: It would be outside when extracted, no file can have this name, or it is
                not normalized, so that collisions with other members could go unnoticed.
        """
        if len(name) > NAME_MAX_BYTES:
            raise UnsafeMember(
                f"the name of member {shown(name)} is longer than {NAME_MAX_BYTES} bytes"
            )
        if name.startswith(self._below) and b".." not in name and b"\0" not in name:
            if b"//" not in name and b"/." not in name:
                return  # the usual case
            if not _is_odd(name):
                return
        if name.startswith(b"/") or b".." in _segments(name) or b"\0" in name:
            raise UnsafeMember(f"the member {shown(name)} leads out of the archive")
        if name != self._top and not name.startswith(self._below):
            raise WrongRoot(f"the member {shown(name)} is outside {self._top.decode()}")
        if _is_odd(name):
            raise UnsafeMember(f"the name of member {shown(name)} is not normalized")

    def check_identity(self, content: bytes) -> None:
        """Check the first IDENTITY_MAX_BYTES of the member that names the node."""
        if self._identity:
            self._identity.check_content(content)


def _segments(name: bytes) -> list[bytes]:
    r"""Return the segments of *name* on Windows, where ``\`` is a separator, too."""
    return name.replace(b"\\", b"/").split(b"/")


def _is_odd(name: bytes) -> bool:
    return b"\0" in name or b"//" in name or b"/./" in name or name.endswith(b"/.")


shown = names.display_path


def special_bits_error(name: bytes) -> UnsafeMember:
    return UnsafeMember(f"the member {shown(name)} has the set-uid, set-gid or sticky bit")
