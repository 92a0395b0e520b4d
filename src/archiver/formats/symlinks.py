"""Checks that no member is written through a symbolic link, and counts links that lead out.

A link is harmless until something is written through it. So no member may be below a link or have
the name of a link. Then links may lead anywhere. Links that lead out of the root are counted, or
rejected if the source is configured that way.

Some file systems ignore letter case, Unicode normalization or certain invisible characters. There,
a member can also collide with a link of a different spelling. On Windows, a backslash separates
segments as a slash does. Linux trees may contain such pairs. They are harmless as long as no link
leads out; otherwise the archive is rejected.
"""

import re
from collections.abc import Iterator
from enum import IntEnum

from archiver.errors import ArchiveTooLarge, UnsafeMember
from archiver.formats.archive_tree import shown
from archiver.formats.name_folding import fold_name

LINK_MAX_BYTES = 4095
"""Maximum length of a link's target: Linux's PATH_MAX without the final NUL."""

HELD_MAX_BYTES = 64 << 20
"""Memory for the links of one archive, about 130,000 of them. Icon themes have up to 100,000."""

HELD_PER_LINK_BYTES = 400
"""Python's overhead for an entry in each of two sets that have just grown."""

UNRESOLVED_MAX_BYTES = 1 << 20
"""Memory for targets that can only be resolved at the end. Ordinary archives have few."""

HELD_PER_UNRESOLVED_BYTES = 250
"""Python's overhead for an entry in a dictionary that has just grown. A list needs less."""

WORK_MAX_BYTES = 8 << 30
"""Bytes of paths that are compared with links: each folder counts once per segment. Five million
folders of depth ten stay below it. This much work takes about ten seconds."""

WORK_PER_CHARACTER = 64
"""The work to fold a non-ASCII character, in the same unit."""

_LEADING_UP = re.compile(rb"(?:\.{0,2}/)+")
"""The beginning of a target, as far as it only goes up or stays in place."""


class LinkTarget(IntEnum):
    """Where a link leads, according to its name and its target alone."""

    IMPOSSIBLE = 0  # no system can create such a link
    INSIDE = 1
    TO_SELF = 2  # to its own name, or another spelling: then to nothing where case is ignored
    OUTSIDE = 3  # an absolute path, a Windows drive, or a path out of the root, here or on Windows
    UNRESOLVED = 4  # goes down and up again, so it may leave the root at a link that it passes


class SymlinkChecker:
    """The links of one archive. ``outside`` is final after ``finish``.

    With *refuse_outside*, links that lead out are rejected. Takes at most HELD_MAX_BYTES of memory.
    """

    def __init__(
        self, *, refuse_outside: bool = False, work_max_bytes: int = WORK_MAX_BYTES
    ) -> None:
        self.outside = 0
        self._refuse_outside = refuse_outside
        self._names: set[bytes] = set()
        self._folded: set[bytes] = set()
        self._unresolved: list[tuple[bytes, bytes]] = []
        self._unresolved_bytes = 0
        self._held_bytes = 0
        self._work_left_bytes = work_max_bytes
        self._folder: bytes | None = None
        self._folder_is_alias = False
        self._alias: bytes | None = None

    def add_member(self, name: bytes) -> None:
        """Check a member that is not a link.

        Raises UnsafeMember if it would be written through a link, or would replace one, and
        ArchiveTooLarge if there are too many names to compare.
        """
        if not self._names:
            return
        name = name.removesuffix(b"/")
        if name in self._names:
            raise UnsafeMember(f"the member {shown(name)} has the name of a link")
        if self._is_below_alias(name) or self._fold(name) in self._folded:
            self._alias = self._alias or name

    def add_link(self, name: bytes, kind: LinkTarget, target: bytes | None) -> None:
        """Check the link *name*, and remember it. *target* is needed only if it is UNRESOLVED.

        Raises:
            UnsafeMember: It would be written through another link or replace one, it is impossible,
                or it leads out and must not.
            ArchiveTooLarge: There are too many links.
        """
        if kind is LinkTarget.IMPOSSIBLE or name.endswith(b"/") or b"/" not in name:
            raise UnsafeMember(f"the link {shown(name)} cannot be created on any system")
        if name in self._names:
            raise UnsafeMember(f"the link {shown(name)} has the name of another link")
        if self._names and self._is_below_alias(name):  # from there it could lead anywhere
            raise UnsafeMember(f"the link {shown(name)} is below another link on some systems")
        self._remember(name, kind)
        if kind is LinkTarget.OUTSIDE:
            self._count_outside(name)
        elif kind is LinkTarget.UNRESOLVED:
            self._defer(name, target)

    def finish(self) -> None:
        """Check what depends on all links. Raises UnsafeMember."""
        for name, target in self._unresolved:
            if self._leaves_root(name, target):
                self._count_outside(name)
        if self.outside and self._alias:
            raise UnsafeMember(
                f"the member {shown(self._alias)} would be written through a link on systems that "
                "ignore letter case or Unicode normalization"
            )

    def _remember(self, name: bytes, kind: LinkTarget) -> None:
        folded = self._fold(name)  # up to three times as long
        self._reserve(len(name) + len(folded) + HELD_PER_LINK_BYTES)
        self._names.add(name)
        if kind is not LinkTarget.TO_SELF:
            self._folded.add(folded)
        self._folder = None

    def _reserve(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the archive has more links than can be checked")

    def _count_outside(self, name: bytes) -> None:
        if self._refuse_outside:
            raise UnsafeMember(f"the link {shown(name)} leads out of the archive")
        self.outside += 1

    def _defer(self, name: bytes, target: bytes | None) -> None:
        """Keep a link for ``finish``. If that takes too much memory, it counts as leading out."""
        size_bytes = len(target or b"") + HELD_PER_UNRESOLVED_BYTES
        self._unresolved_bytes += size_bytes
        fits = self._unresolved_bytes <= UNRESOLVED_MAX_BYTES
        if target is None or not is_plausible(target) or not fits:
            self._count_outside(name)
        else:
            self._reserve(size_bytes)
            self._unresolved.append((name, target))

    def _leaves_root(self, name: bytes, target: bytes) -> bool:
        """Return whether a link goes above the root, or up again from below another link."""
        path = name[: name.rfind(b"/")]
        below_link = [False] * (path.count(b"/") + 1)
        for segment in target.split(b"/"):
            if segment == b"..":
                if below_link.pop() or not below_link:
                    return True
                path = path[: path.rfind(b"/")]
            elif segment not in {b"", b"."}:
                path += b"/" + segment
                is_link = path in self._names or self._fold(path) in self._folded
                below_link.append(below_link[-1] or is_link)
        return False

    def _is_below_alias(self, name: bytes) -> bool:
        """Return whether *name* is below a differently spelled link.

        Members of a folder usually follow each other, so the last answer is cached. Raises
        UnsafeMember if *name* is below a link in its own spelling.
        """
        folder = name[: max(name.rfind(b"/"), name.rfind(b"\\")) + 1]
        if folder != self._folder:
            self._spend((folder.count(b"/") + folder.count(b"\\")) * len(folder))
            if not self._names.isdisjoint(_parents(folder)):
                raise UnsafeMember(f"the member {shown(name)} is below a link")
            self._folder_is_alias = not self._folded.isdisjoint(_parents(self._fold(folder)))
            self._folder = folder
        return self._folder_is_alias

    def _fold(self, name: bytes) -> bytes:
        if not name.isascii():
            self._spend(len(name) * WORK_PER_CHARACTER)
        return fold_name(name)

    def _spend(self, work_bytes: int) -> None:
        self._work_left_bytes -= work_bytes
        if self._work_left_bytes < 0:
            raise ArchiveTooLarge("the archive has too many long paths to compare with its links")


class ZipLinkCandidates:
    """Where each member of a zip would lead if it were a link, which only the directory shows.

    Takes a byte or two per member, and UNRESOLVED_MAX_BYTES for all UNRESOLVED targets.
    """

    def __init__(self, *, links: SymlinkChecker) -> None:
        self._links = links
        self._kinds = bytearray()
        self._targets: dict[int, bytes] = {}
        self._held_bytes = 0

    def add_member(self, name: bytes, content: bytes) -> None:
        """Add the next member, with its first LINK_MAX_BYTES + 1 bytes."""
        kind = classify_target(name, content)
        if kind is LinkTarget.UNRESOLVED and is_plausible(content):
            self._held_bytes += len(content) + HELD_PER_UNRESOLVED_BYTES
            if self._held_bytes <= UNRESOLVED_MAX_BYTES:
                self._targets[len(self._kinds)] = content
        self._kinds.append(kind)

    def add_link(self, number: int, name: bytes) -> None:
        """Treat the member of this *number* as a link. Raises as ``SymlinkChecker.add_link``."""
        kind = self._kinds[number] if number < len(self._kinds) else LinkTarget.IMPOSSIBLE
        self._links.add_link(name, LinkTarget(kind), self._targets.get(number))


def classify_target(name: bytes, target: bytes) -> LinkTarget:
    """Return where a link *name* to *target* leads. Fast, since a zip needs it for every file.

    A target that may lead out if backslashes are separators counts as leading out.
    """
    if not 0 < len(target) <= LINK_MAX_BYTES or b"\0" in target:
        return LinkTarget.IMPOSSIBLE
    if b"\\" not in target:
        return _classify_posix(name, target)
    readings = (target, target.replace(b"\\", b"/"))
    outside = any(_classify_posix(name, each) >= LinkTarget.OUTSIDE for each in readings)
    return LinkTarget.OUTSIDE if outside else LinkTarget.INSIDE


def _classify_posix(name: bytes, target: bytes) -> LinkTarget:
    if target.startswith(b"/") or target[1:2] == b":":
        return LinkTarget.OUTSIDE
    path = target + b"/"
    match = _LEADING_UP.match(path)
    leading = match[0] if match else b""
    if leading.count(b"..") >= name.count(b"/"):
        return LinkTarget.OUTSIDE
    if path.find(b"/../", len(leading)) >= 0:
        return LinkTarget.UNRESOLVED
    return LinkTarget.TO_SELF if _is_own_name(target, name) else LinkTarget.INSIDE


def is_plausible(target: bytes) -> bool:
    """Return whether an UNRESOLVED target is worth resolving. Real targets have no newlines."""
    return b"\n" not in target


def _is_own_name(target: bytes, name: bytes) -> bool:
    """Return whether *target* is the last segment of *name*, in some spelling."""
    segment = name[name.rfind(b"/") + 1 :]
    return (
        len(target) <= 3 * len(segment)
        and b"/" not in target
        and fold_name(target) == fold_name(segment)
    )


def _parents(name: bytes) -> Iterator[bytes]:
    """Yield each folder above *name*, the nearest first."""
    at = name.rfind(b"/")
    while at > 0:
        yield name[:at]
        at = name.rfind(b"/", 0, at)
