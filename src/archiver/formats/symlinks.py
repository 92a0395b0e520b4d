"""Checks that no member is written through a symbolic link, and counts links that lead out.

A link does no harm until something is written through it. So no member may lie below a link or
have a link's name. Then a link may lead anywhere: links that lead out of the root are counted, or
refused if the source is set to that.

On file systems where letter case or Unicode normalisation does not count, or where some invisible
characters do not, a member can also meet a link under another spelling; so it can on Windows, where
a backslash divides as a slash does. Linux trees may hold such pairs, and they do no harm as long as
no link leads out; otherwise the archive is refused.
"""

import re
from collections.abc import Iterator
from enum import IntEnum

from archiver.errors import ArchiveTooLarge, UnsafeMember
from archiver.formats.archive_tree import shown
from archiver.formats.name_folding import fold

LINK_MAX_BYTES = 4095
"""Bytes of a link's target: Linux's PATH_MAX without the NUL at its end."""

HELD_MAX_BYTES = 64 << 20
"""Memory for the links of one archive, some 130,000 of them. Icon themes have up to 100,000."""

HELD_PER_LINK_BYTES = 400
"""What Python needs for two entries in two sets that have just grown, besides the names."""

TURNS_MAX_BYTES = 1 << 20
"""Memory for targets that go down and up again, which are looked into at the end. Honest ones are
few."""

HELD_PER_TURN_BYTES = 250
"""What Python needs for an entry in a dictionary that has just grown, besides the target. In a list
it is less."""

WORK_MAX_BYTES = 8 << 30
"""Of paths that are compared with links: of each folder, as often as it has segments. Five million
folders ten deep need less; it takes some ten seconds."""

WORK_PER_CHARACTER = 64
"""The work to fold a character that is not ASCII, in such bytes."""

_START = re.compile(rb"(?:\.{0,2}/)+")
"""What only goes up, or nowhere, in the beginning of a target."""


class Course(IntEnum):
    """Where a link leads, judged by its name and its target alone."""

    NOWHERE = 0
    """No system can make such a link."""

    INSIDE = 1

    TO_ITSELF = 2
    """To its own name, maybe in other letter case: where that does not count, to nothing."""

    OUTSIDE = 3
    """It is absolute, or goes above the root; to Windows, too, where it may also name a drive."""

    TURNING = 4
    """It goes down and up again, so it may go through another link and lead out from there."""


class Links:
    """The links of one archive. ``outside`` counts links that lead out; after ``close``, all.

    With *refuse_outside* such links are refused. Takes HELD_MAX_BYTES of memory at most.
    """

    def __init__(
        self, *, refuse_outside: bool = False, work_max_bytes: int = WORK_MAX_BYTES
    ) -> None:
        self.outside = 0
        self._refuse_outside = refuse_outside
        self._names: set[bytes] = set()
        self._folded: set[bytes] = set()
        self._turning: list[tuple[bytes, bytes]] = []
        self._turning_bytes = 0
        self._held_bytes = 0
        self._work_left_bytes = work_max_bytes
        self._folder: bytes | None = None
        self._folder_is_alias = False
        self._alias: bytes | None = None

    def check_member(self, name: bytes) -> None:
        """Take note of a member that is no link.

        Raises:
            UnsafeMember: It would be written through a link, or in place of one.
            ArchiveTooLarge: There are too many names to compare.
        """
        if not self._names:
            return
        name = name.removesuffix(b"/")
        if name in self._names:
            raise UnsafeMember(f"the member {shown(name)} has the name of a link")
        if self._is_below_alias(name) or self._fold(name) in self._folded:
            self._alias = self._alias or name

    def enter(self, name: bytes, course: Course, target: bytes | None) -> None:
        """Take note of the link *name*; *target* is needed only if it is TURNING.

        Raises:
            UnsafeMember: It would be written through another link or in place of one, or it cannot
                be made, or it leads out and must not.
            ArchiveTooLarge: There are too many links.
        """
        if course is Course.NOWHERE or name.endswith(b"/") or b"/" not in name:
            raise UnsafeMember(f"the link {shown(name)} is one that cannot be made")
        if name in self._names:
            raise UnsafeMember(f"the link {shown(name)} has the name of another link")
        if self._names and self._is_below_alias(name):  # from there it could lead anywhere
            raise UnsafeMember(f"the link {shown(name)} lies below a link to some systems")
        self._hold(name, course)
        if course is Course.OUTSIDE:
            self._leads_out(name)
        elif course is Course.TURNING:
            self._turns(name, target)

    def close(self) -> None:
        """Check what depends on all links. Raises UnsafeMember."""
        for name, target in self._turning:
            if self._turns_out(name, target):
                self._leads_out(name)
        if self.outside and self._alias:
            raise UnsafeMember(
                f"the member {shown(self._alias)} would be written through a link where letter "
                "case or Unicode normalisation does not count"
            )

    def _hold(self, name: bytes, course: Course) -> None:
        folded = self._fold(name)  # which may be three times as long
        self._charge(len(name) + len(folded) + HELD_PER_LINK_BYTES)
        self._names.add(name)
        if course is not Course.TO_ITSELF:
            self._folded.add(folded)
        self._folder = None

    def _charge(self, size_bytes: int) -> None:
        self._held_bytes += size_bytes
        if self._held_bytes > HELD_MAX_BYTES:
            raise ArchiveTooLarge("the archive has more links than can be checked")

    def _leads_out(self, name: bytes) -> None:
        if self._refuse_outside:
            raise UnsafeMember(f"the link {shown(name)} leads out of the archive")
        self.outside += 1

    def _turns(self, name: bytes, target: bytes | None) -> None:
        """Keep a link for ``close``; one that cannot be kept counts as one that leads out."""
        size_bytes = len(target or b"") + HELD_PER_TURN_BYTES
        self._turning_bytes += size_bytes
        if target is None or not is_worth_keeping(target) or self._turning_bytes > TURNS_MAX_BYTES:
            self._leads_out(name)
        else:
            self._charge(size_bytes)
            self._turning.append((name, target))

    def _turns_out(self, name: bytes, target: bytes) -> bool:
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
        """Return whether *name* lies below a link in another spelling; raise if it is in its own.

        Members of a folder come together, so the last answer is kept.
        """
        folder = name[: max(name.rfind(b"/"), name.rfind(b"\\")) + 1]
        if folder != self._folder:
            self._spend((folder.count(b"/") + folder.count(b"\\")) * len(folder))
            if not self._names.isdisjoint(_above(folder)):
                raise UnsafeMember(f"the member {shown(name)} lies below a link")
            self._folder_is_alias = not self._folded.isdisjoint(_above(self._fold(folder)))
            self._folder = folder
        return self._folder_is_alias

    def _fold(self, name: bytes) -> bytes:
        if not name.isascii():
            self._spend(len(name) * WORK_PER_CHARACTER)
        return fold(name)

    def _spend(self, work_bytes: int) -> None:
        self._work_left_bytes -= work_bytes
        if self._work_left_bytes < 0:
            raise ArchiveTooLarge("the archive has too many long paths to compare with its links")


class Candidates:
    """Where the members of a zip would lead if they were links, which its end says.

    Takes a byte or two for each member, and TURNS_MAX_BYTES for all targets that are TURNING.
    """

    def __init__(self, *, links: Links) -> None:
        self._links = links
        self._courses = bytearray()
        self._targets: dict[int, bytes] = {}
        self._held_bytes = 0

    def add(self, name: bytes, content: bytes) -> None:
        """Take note of the next member, and of its first LINK_MAX_BYTES + 1 bytes."""
        found = course(name, content)
        if found is Course.TURNING and is_worth_keeping(content):
            self._held_bytes += len(content) + HELD_PER_TURN_BYTES
            if self._held_bytes <= TURNS_MAX_BYTES:
                self._targets[len(self._courses)] = content
        self._courses.append(found)

    def enter(self, number: int, name: bytes) -> None:
        """Take the member of this *number* for a link. Raises as ``Links.enter`` does."""
        found = self._courses[number] if number < len(self._courses) else Course.NOWHERE
        self._links.enter(name, Course(found), self._targets.get(number))


def course(name: bytes, target: bytes) -> Course:
    """Return where a link *name* to *target* leads. Quick, as a zip has it asked for every file.

    If backslashes that divide might make it lead out, it is taken to do so.
    """
    if not 0 < len(target) <= LINK_MAX_BYTES or b"\0" in target:
        return Course.NOWHERE
    if b"\\" not in target:
        return _course(name, target)
    readings = (target, target.replace(b"\\", b"/"))
    leads_out = any(_course(name, each) >= Course.OUTSIDE for each in readings)
    return Course.OUTSIDE if leads_out else Course.INSIDE


def _course(name: bytes, target: bytes) -> Course:
    if target.startswith(b"/") or target[1:2] == b":":
        return Course.OUTSIDE
    way = target + b"/"
    start = _START.match(way)
    beginning = start[0] if start else b""
    if beginning.count(b"..") >= name.count(b"/"):
        return Course.OUTSIDE
    if way.find(b"/../", len(beginning)) >= 0:
        return Course.TURNING
    return Course.TO_ITSELF if _is_alike(target, name) else Course.INSIDE


def is_worth_keeping(target: bytes) -> bool:
    """Return whether to look into a TURNING target. Honest targets have no lines inside."""
    return b"\n" not in target


def _is_alike(target: bytes, name: bytes) -> bool:
    """Return whether *target* is the last segment of *name*, in some spelling of it."""
    segment = name[name.rfind(b"/") + 1 :]
    return len(target) <= 3 * len(segment) and b"/" not in target and fold(target) == fold(segment)


def _above(name: bytes) -> Iterator[bytes]:
    """Yield each folder that *name* lies below, the nearest first."""
    at = name.rfind(b"/")
    while at > 0:
        yield name[:at]
        at = name.rfind(b"/", 0, at)
