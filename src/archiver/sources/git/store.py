"""The folder of one mirror: a bare repository without refs, its locks and its notes.

::

    HEAD config refs/ objects/     a git directory that honours the attributes of commits
    exact/                         a second one, for the same objects, that ignores them
    use.lock                       shared by its users, exclusive for its removal; its time is that
                                   of the last use
    fetch.lock                     exclusive for whatever writes to objects/
    nodes/{node}                   empty; its time is that of the last complete archive
    mirror.json                    whose objects these are
    first-size                     bytes after the first fetch
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from archiver.errors import MirrorFailed, NoRoom
from archiver.git_objects import SHA256_DIGITS
from archiver.model import Node, parse_node

SPARE_BYTES = 256 << 20
"""Must stay free on the disk, which other programs use as well."""

HAVES_MAX = 8
"""Nodes that a fetch offers to the host: more would make requests longer, and save nothing."""

EXACT_ATTRIBUTES = (
    "* !export-ignore !export-subst -text !eol -ident !working-tree-encoding !filter\n"
)

_PACK_COUNT = slice(8, 12)
"""Of a multi-pack-index: https://git-scm.com/docs/gitformat-pack."""

_LIMITED = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM}

_GONE = (FileNotFoundError, NotADirectoryError)


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Whose objects a mirror has. ``digits`` is the length of git's ids."""

    source: str
    repo: str
    digits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a mirror on disk. ``loose_packs`` are not in the index of several packs."""

    size_bytes: int
    packs: int
    loose_packs: int


@contextmanager
def storing() -> Iterator[None]:
    """Translate errors of the disk: MirrorFailed if the mirror is damaged, else NoRoom."""
    try:
        yield
    except _GONE as exc:
        raise MirrorFailed("the worker's copy of the repository is damaged") from exc
    except OSError as exc:
        raise unusable(exc) from exc


def unusable(failure: OSError) -> NoRoom:
    """Return the error for a file in worker.mirror_dir that could not be used."""
    return starved(failure) or NoRoom("worker.mirror_dir is not writable")


def starved(failure: BaseException | None) -> NoRoom | None:
    """Return the error if *failure* means that this process may not open or start more."""
    if not isinstance(failure, OSError) or failure.errno not in _LIMITED:
        return None
    return NoRoom(
        "the worker has too many open files or processes: raise its limits (ulimit -n, ulimit -u)",
        of_disk=False,
    )


def has_room(folder: Path, more_bytes: int = 0) -> bool:
    """Return whether the disk of *folder* has room for *more_bytes*, and some to spare."""
    return shutil.disk_usage(folder).free >= more_bytes + SPARE_BYTES


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of a mirror. Methods raise OSError, FileNotFoundError if it is damaged."""

    folder: Path

    @property
    def objects(self) -> Path:
        return self.folder / "objects"

    @property
    def exact(self) -> Path:
        """The git directory that ignores the attributes of commits."""
        return self.folder / "exact"

    @property
    def use_lock(self) -> Path:
        return self.folder / "use.lock"

    @property
    def fetch_lock(self) -> Path:
        return self.folder / "fetch.lock"

    @property
    def _packs(self) -> Path:
        return self.objects / "pack"

    def create(self, identity: Identity) -> None:
        """Write an empty mirror into the folder, which must not exist."""
        self._packs.mkdir(parents=True, mode=0o700)
        (self.folder / "nodes").mkdir()
        for git_dir in (self.folder, self.exact):
            (git_dir / "refs").mkdir(parents=True)
            (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
            (git_dir / "config").write_text(_config(identity.digits))
        (self.exact / "info").mkdir()
        (self.exact / "info" / "attributes").write_text(EXACT_ATTRIBUTES)
        (self.folder / "mirror.json").write_bytes(msgspec.json.encode(identity))
        for lock in (self.use_lock, self.fetch_lock):
            lock.touch(mode=0o600)

    def is_whole(self) -> bool:
        """Return whether no part of the folder is missing, as far as git needs it for a fetch."""
        return self._packs.is_dir() and (self.folder / "HEAD").is_file()

    def identity(self) -> Identity | None:
        """Return whose objects these are; None if the folder is damaged."""
        try:
            text = (self.folder / "mirror.json").read_bytes()
            return msgspec.json.decode(text, type=Identity)
        except (OSError, msgspec.DecodeError):
            return None

    def remember(self, node: Node) -> None:
        path = self.folder / "nodes" / node
        path.touch(mode=0o600)
        for forgotten in self.nodes()[HAVES_MAX:]:
            (path.parent / forgotten).unlink(missing_ok=True)

    def nodes(self) -> list[Node]:
        """Return the nodes that were archived completely, the last one first."""
        times = {}
        with os.scandir(self.folder / "nodes") as entries:
            for entry in entries:
                if node := parse_node(entry.name):
                    with suppress(FileNotFoundError):  # another process forgot it
                        times[node] = entry.stat().st_mtime_ns
        return sorted(times, key=lambda node: times[node], reverse=True)

    def last_used(self) -> datetime:
        """Return when the last use began; 1970 if the folder is damaged."""
        try:
            return datetime.fromtimestamp(self.use_lock.stat().st_mtime, UTC)
        except OSError:
            return datetime.fromtimestamp(0, UTC)

    def size(self) -> Size:
        """Return what is on disk; nothing if the folder is damaged."""
        sizes = self._pack_sizes()
        packs = sum(name.endswith(".pack") for name in sizes)
        return Size(
            size_bytes=sum(sizes.values()),
            packs=packs,
            loose_packs=max(0, packs - self._indexed_packs()),
        )

    def _pack_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = {}
        try:
            entries = os.scandir(self._packs)
        except _GONE:
            return sizes
        with entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it was repacked
                    sizes[entry.name] = entry.stat().st_size
        return sizes

    def _indexed_packs(self) -> int:
        try:
            with (self._packs / "multi-pack-index").open("rb") as file:
                return int.from_bytes(file.read(_PACK_COUNT.stop)[_PACK_COUNT])
        except FileNotFoundError:
            return 0

    def first_size_bytes(self) -> int:
        """Return the size after the first fetch; 0 before it."""
        try:
            return int((self.folder / "first-size").read_text() or 0)
        except (FileNotFoundError, ValueError):
            return 0

    def set_first_size(self, size_bytes: int) -> None:
        (self.folder / "first-size").write_text(str(size_bytes))

    def remove_litter(self) -> None:
        """Remove what killed processes left behind. Only for the holder of the fetch lock.

        A pack counts once it has an index, which git writes last.
        """
        names = self._pack_sizes()
        packs = {Path(name).stem for name in names if name.startswith("pack-")}
        whole = {pack for pack in packs if {f"{pack}.pack", f"{pack}.idx"} <= names.keys()}
        for name in names:
            is_index = name.startswith("multi-pack-index") and not name.endswith(".lock")
            if Path(name).stem not in whole and not is_index:
                (self._packs / name).unlink(missing_ok=True)
        for path in self.objects.glob("tmp_*"):
            path.unlink(missing_ok=True)


def _config(digits: int) -> str:
    sha256 = digits == SHA256_DIGITS
    lines = ["[core]", f"\trepositoryformatversion = {int(sha256)}", "\tbare = true"]
    if sha256:
        lines += ["[extensions]", "\tobjectformat = sha256"]
    return "\n".join([*lines, ""])
