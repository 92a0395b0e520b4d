"""Whether symbolic links could lead whoever extracts them out of an archive's root.

It can be told from names alone as long as nothing lies below a link, and no link goes down through
another one and up again.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from archiver.errors import ArchiveTooLarge, UnsafeMember
from archiver.formats.tree import shown

LINK_MAX_BYTES = 4096
"""What a link may point to, in bytes: Linux's PATH_MAX."""

NAMES_MAX_BYTES = 32 << 20
"""Of all links of an archive together. The largest trees have some ten thousand."""


TURNS_MAX = 10_000
"""Members that might be links which go down and up again. Of texts without a line's end, few do."""


@dataclass(frozen=True, slots=True)
class Descent:
    """That the link ``name`` goes down to ``through``, and up again from there."""

    name: bytes
    through: bytes


class Links:
    """The links of one archive, whose root is the directory *root*."""

    def __init__(self, *, root: str) -> None:
        self._root = root.encode()
        self._names: set[bytes] = set()
        self._descents: list[Descent] = []
        self._held_bytes = 0
        self._sound_folder = b""

    def way(self, name: bytes, target: bytes) -> list[Descent] | None:
        """Return where the link *name* to *target* turns up again; None if it would lead out."""
        if target.startswith(b"/") or b"\0" in target or len(target) > LINK_MAX_BYTES:
            return None
        if name.endswith(b"/"):  # it would be taken for a place within the link
            return None
        *path, _ = name.split(b"/")
        descents = []
        came_down = False
        for segment in target.split(b"/"):
            if segment == b"..":
                if came_down:
                    descents.append(Descent(name, b"/".join(path)))
                if not path:
                    return None
                path.pop()
            elif segment not in {b"", b"."}:
                path.append(segment)
                came_down = True
        return descents if path[:1] == [self._root] and name != self._root else None

    def enter(self, name: bytes, way: list[Descent] | None) -> None:
        """Take note of a link that goes this *way*.

        Raises:
            UnsafeMember: It leads out.
            ArchiveTooLarge: There are more links than anyone could keep in mind.
        """
        if way is None:
            raise unsafe_link(name)
        self._names.add(name)
        self._sound_folder = b""
        self._descents += way
        self._held_bytes += len(name) + sum(len(descent.through) for descent in way)
        if self._held_bytes > NAMES_MAX_BYTES:
            raise ArchiveTooLarge("the archive has more links than can be checked")

    def check_member(self, name: bytes) -> None:
        """Return if *name* does not lie below a link. Raises UnsafeMember."""
        folder = name[: name.rfind(b"/")]
        if folder == self._sound_folder:  # members of a folder come together
            return
        if not self._names.isdisjoint(_above(name)):
            raise UnsafeMember(f"the member {shown(name)} lies below a link")
        self._sound_folder = folder

    def check_twin(self, name: bytes) -> None:
        """Return if a hard link to *name* is none to a link: it would lead from elsewhere.

        Raises UnsafeMember.
        """
        self.check_member(name)
        if name in self._names:
            raise UnsafeMember(f"a hard link makes the link {shown(name)} lead from elsewhere")

    def close(self) -> None:
        """Return if none of the links turns on another one. Raises UnsafeMember."""
        for descent in self._descents:
            if not self._names.isdisjoint((descent.through, *_above(descent.through))):
                raise unsafe_link(descent.name)


class Candidates:
    """What the members of an archive would be if they were links, which it tells at its end.

    Takes one byte for each of them.
    """

    def __init__(self, *, links: Links) -> None:
        self._links = links
        self._fit = bytearray()
        self._ways: dict[int, list[Descent]] = {}

    def add(self, name: bytes, content: bytes) -> None:
        """Take note of the next member, and of its first LINK_MAX_BYTES + 1 bytes."""
        # Few links and most texts have a line's end, which spares a look at every path in them.
        way = None if b"\n" in content else self._links.way(name, content)
        if way and len(self._ways) < TURNS_MAX:
            self._ways[len(self._fit)] = way
        self._fit.append(way == [] or len(self._fit) in self._ways)

    def enter(self, number: int, name: bytes) -> None:
        """Take the member of this *number* for a link. Raises as ``Links.enter`` does."""
        fit = number < len(self._fit) and self._fit[number]
        self._links.enter(name, self._ways.get(number, []) if fit else None)


def _above(name: bytes) -> Iterator[bytes]:
    at = name.rfind(b"/")
    while at > 0:
        yield name[:at]
        at = name.rfind(b"/", 0, at)


def unsafe_link(name: bytes) -> UnsafeMember:
    return UnsafeMember(f"the link {shown(name)} leads out of the archive")
