"""Which files of a commit its ``.gitattributes`` may change in an archive, or leave out.

``git archive`` applies export-ignore, export-subst, eol, ident and working-tree-encoding:
https://git-scm.com/docs/gitattributes.
"""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from typing import BinaryIO

from archiver.errors import EmptyTree, NotPackable
from archiver.git_objects import FOLDER, SUBMODULE, CommitRecord, parse_tree
from archiver.git_objects.attribute_words import WORDS
from archiver.model import Archive
from archiver.sources.git.attribute_lookup import look_up_attributes
from archiver.sources.git.listing import ATTRIBUTES_NAME, Listing, spool
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.store import storing

KEPT, MAY_CHANGE, MAY_BE_OMITTED = b"\0", b"\1", b"\2"
"""One byte for each entry of a listing. An entry that may be omitted may also be changed."""

PLACEHOLDERS_MAX = 1000
"""Git may start a process for each ``$Format:`` placeholder."""

_PLACEHOLDER = b"$Format:"

_NAMES = ("export-ignore", "export-subst", "eol", "ident", "working-tree-encoding")
_OFF = frozenset({b"unspecified", b"unset"})
_OVERLAP = 32


class Effects:
    """What attributes do to each entry of a listing."""

    def __init__(self, flags: BinaryIO | None) -> None:
        self._flags = flags

    def __iter__(self) -> Iterator[bytes]:
        """Yield KEPT, MAY_CHANGE or MAY_BE_OMITTED for each entry. Reads block."""
        if self._flags is None:
            while True:
                yield KEPT
        position = 0
        while piece := os.pread(self._flags.fileno(), 1 << 16, position):
            position += len(piece)
            for flag in piece:
                yield bytes((flag,))


NO_EFFECTS = Effects(None)


@asynccontextmanager
async def find_effects(
    mirror: Mirror,
    archive: Archive,
    listing: Listing,
    record: CommitRecord,
    *,
    may_be_empty: bool = False,
) -> AsyncIterator[Effects]:
    """Yield the effects on *listing*. Costs a second look at all paths only if there may be any.

    *record* has the trees above the subdir, whose attributes apply to it. Raises EmptyTree if all
    files are left out, unless that is allowed, NotPackable if there are too many placeholders,
    GitFailed, MirrorFailed, or NoRoom.
    """
    files = [*_attributes_files_above(archive, record), *listing.attributes_files]
    with storing():
        may_have_effects = await _may_have_effects(mirror, files)
    if not may_have_effects:
        yield NO_EFFECTS
        return
    with ExitStack() as stack:
        flags, substituted = (stack.enter_context(spool(mirror.scratch)) for _ in range(2))
        with storing():
            writer = _EffectWriter(listing, flags, substituted)
            await look_up_attributes(
                mirror,
                archive.node,
                _NAMES,
                wanted=writer.wanted,
                take=writer.take,
                cpu=listing.cpu,
            )
            flags.flush()
            if not writer.keeps_any and not may_be_empty:
                where = archive.subdir or archive.node
                raise EmptyTree(f"the attributes of {archive.repo} leave out all files of {where}")
            await _limit_placeholders(mirror, archive, substituted)
        yield Effects(flags)


async def leave_out(mirror: Mirror, archive: Archive, path: str, *, cpu: timedelta) -> bool:
    """Return whether the attributes of a commit leave the folder *path* out of archives.

    Raises GitFailed, MirrorFailed, or NoRoom.
    """
    names = path.split("/")
    folders = ["/".join(names[:depth]) + "/" for depth in range(1, len(names) + 1)]
    ignored: list[bool] = []
    with storing():
        await look_up_attributes(
            mirror,
            archive.node,
            ("export-ignore",),
            wanted=lambda: ((folder.encode(), None) for folder in folders),
            take=lambda _path, _, values: ignored.append(values[0] == b"set"),
            cpu=cpu,
        )
    return any(ignored)


def _attributes_files_above(archive: Archive, record: CommitRecord) -> Iterator[str]:
    """Yield the ids of the attributes files in the folders above the subdir."""
    for tree in record.trees:
        for entry in parse_tree(tree, digits=len(archive.node)):
            if entry.name == ATTRIBUTES_NAME and entry.mode not in {FOLDER, SUBMODULE}:
                yield entry.object_id


async def _may_have_effects(mirror: Mirror, files: Sequence[str]) -> bool:
    found = dict.fromkeys(WORDS, 0)
    await _count_in_blobs(mirror, "\n".join(files).encode(), found)
    return any(found.values())


async def _limit_placeholders(mirror: Mirror, archive: Archive, substituted: BinaryIO) -> None:
    found = {_PLACEHOLDER: 0}
    await _count_in_blobs(mirror, substituted, found)
    if found[_PLACEHOLDER] > PLACEHOLDERS_MAX:
        raise NotPackable(
            f"{archive.node} in {archive.repo} has more than {PLACEHOLDERS_MAX:,} $Format: "
            "placeholders"
        )


async def _count_in_blobs(mirror: Mirror, ids: BinaryIO | bytes, found: dict[bytes, int]) -> None:
    """Count in *found* how often its words occur in blobs. *ids* has one on each line."""
    with ExitStack() as stack:
        if isinstance(ids, bytes):
            file = stack.enter_context(spool(mirror.scratch))
            file.write(ids)
            ids = file
        if not ids.tell():
            return
        ids.flush()
        ids.seek(0)
        async with mirror.git.stream("cat-file", "--batch", "--buffer", stdin=ids) as output:
            tail = b""
            async for piece in output:
                for word in found:
                    before = tail[-len(word) + 1 :]
                    found[word] += (before + piece).count(word)
                tail = (tail + piece)[-_OVERLAP:]


class _EffectWriter:
    """Writes a flag for each entry of a listing, as git reports the attributes of its path.

    Git is also asked for the folders of each path, with a slash at their end: whatever is in an
    ignored folder is omitted. ``keeps_any`` is whether an entry is not omitted.
    """

    def __init__(self, listing: Listing, flags: BinaryIO, substituted: BinaryIO) -> None:
        self._listing = listing
        self._flags = flags
        self._substituted = substituted
        self._ignored: bytes | None = None
        self.keeps_any = False

    def wanted(self) -> Iterator[tuple[bytes, str]]:
        """Yield the path of each folder and entry with its id, which is empty for a folder."""
        folder = b""
        for entry in self._listing:
            parent = entry.path[: entry.path.rfind(b"/") + 1]
            yield from ((each, "") for each in _new_folders(folder, parent))
            folder = parent
            is_submodule = entry.mode == SUBMODULE
            yield entry.path + (b"/" if is_submodule else b""), entry.object_id

    def take(self, path: bytes, object_id: str, values: Sequence[bytes]) -> None:
        ignore, subst, eol, ident, encoding = values
        ignored = ignore == b"set"
        if not object_id:
            if ignored and not self._is_ignored(path):
                self._ignored = path
            return
        changes = subst == b"set" or eol == b"crlf" or ident == b"set" or encoding not in _OFF
        if ignored or self._is_ignored(path):
            flag = MAY_BE_OMITTED
        else:
            flag = MAY_CHANGE if changes else KEPT
            self.keeps_any = True
            if subst == b"set":
                self._substituted.write(object_id.encode() + b"\n")
        self._flags.write(flag)

    def _is_ignored(self, path: bytes) -> bool:
        return self._ignored is not None and path.startswith(self._ignored)


def _new_folders(before: bytes, folder: bytes) -> Iterator[bytes]:
    """Return *folder* and those above it that do not contain *before*, the outermost first."""
    found = []
    while not before.startswith(folder):
        found.append(folder)
        folder = folder[: folder.rfind(b"/", 0, -1) + 1]
    return reversed(found)
