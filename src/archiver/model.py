"""The values that Archiver is about: frozen, pure, without a word of HTTP, S3 or NATS."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Never, NewType

from archiver.errors import InvalidRequest
from archiver.names import (
    NAME_MAX_BYTES,
    SEPARATOR,
    escape_name,
    require_name,
    require_rev,
    unescape_segment,
)

Node = NewType("Node", str)
"""The full id of a commit in lower case: 40 (SHA-1) or 64 (SHA-256) hex digits."""

TaskId = NewType("TaskId", str)
"""A key without its version, ``/`` written as ``:``. One per archive; reads back to it."""

Region = NewType("Region", str)
"""A name with exactly one bucket."""

PresignedUrl = NewType("PresignedUrl", str)
"""A time-limited link: a secret, never logged or stored."""

SUFFIXES = ("tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip")
"""The formats of archives: each can be verified, and made of each other one."""

KEY_VERSION = "v1"

KEY_MAX_BYTES = NAME_MAX_BYTES
"""S3 ends keys at 1024 bytes; prefix, attempt and file name need up to 230 of them."""

STEM_MAX_CHARS = 150

NODE_ALLOWED = "40 or 64 hex digits"

_NODE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANY_NODE = Node("0" * 40)


def parse_node(text: str) -> Node | None:
    """Return *text* as a node, or None if it is not 40 or 64 hex digits of either case."""
    lowered = text.lower()
    return Node(lowered) if _NODE.fullmatch(lowered) else None


def rev_hash(source: str, repo: str, rev: str) -> str:
    """Return what stands for a rev of a repo where a name would be too long: 64 hex digits."""
    return hashlib.sha256(f"{source}\0{repo}\0{rev}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRequest:
    """A parsed request. ``rev`` is what the client typed, and may move."""

    source: str
    repo: str
    rev: str
    subdir: str
    suffix: str
    preferred_region: Region | None = None
    _archive: "Archive" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        node = parse_node(self.rev)
        if not node:
            require_rev(self.rev)
        archive = Archive(  # so that no host is asked about names that no key could hold
            source=self.source,
            repo=self.repo,
            node=node or _ANY_NODE,
            subdir=self.subdir,
            suffix=self.suffix,
        )
        object.__setattr__(self, "_archive", archive)

    def at(self, node: Node) -> "Archive":
        """Return the archive that this request means, now that its rev is known to be *node*."""
        archive = self._archive
        return archive if archive.node == node else replace(archive, node=node)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The identity of immutable bytes. An ``Archive`` with names that no key could hold cannot be.

    ``subdir`` is empty for the whole tree.
    """

    source: str
    repo: str
    node: Node
    subdir: str
    suffix: str

    def __post_init__(self) -> None:
        require_name(self.source, "source")
        require_name(self.repo, "repo")
        if self.subdir:
            require_name(self.subdir, "subdir")
        require_name(self.suffix, "suffix")
        if "/" in self.source + self.suffix or not _NODE.fullmatch(self.node):
            raise InvalidRequest("not an archive", parameter="rev", allowed=NODE_ALLOWED)
        if len(self.key) > KEY_MAX_BYTES:
            raise InvalidRequest(
                "repo and subdir together are too long",
                parameter="subdir" if self.subdir else "repo",
                allowed=f"a key of at most {KEY_MAX_BYTES} bytes",
            )

    @cached_property
    def key(self) -> str:
        """Its place in every bucket: ``v1/source/repo…/-/node/subdir…/-/suffix``.

        Injective, because no segment of a repo or subdir is ``-``, and no key is another one's
        folder, because nothing follows the one segment behind the second ``-``.
        """
        place = f"{escape_name(self.source)}/{escape_name(self.repo)}/{SEPARATOR}/{self.node}"
        subdir = f"{escape_name(self.subdir)}/" if self.subdir else ""
        return f"{KEY_VERSION}/{place}/{subdir}{SEPARATOR}/{escape_name(self.suffix)}"

    @property
    def task_id(self) -> TaskId:
        return TaskId(self.key.removeprefix(f"{KEY_VERSION}/").replace("/", ":"))

    @cached_property
    def key_hash(self) -> str:
        """The key as 64 hex digits, for places that bear neither its length nor its characters."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def basename(self) -> str:
        return self.repo.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """A name to save it under: ASCII, no spaces, no quotes. For people; not unique."""
        parts = [self.basename, self.node[:12], *(self.subdir.split("/") if self.subdir else [])]
        stem = re.sub(r"[^A-Za-z0-9._+-]", "-", "-".join(parts)).lstrip(".-")
        return f"{stem[:STEM_MAX_CHARS]}.{self.suffix}"


def parse_key(key: str) -> Archive | None:
    """Return the archive whose key this is, or None if it is nobody's."""
    if len(key) > KEY_MAX_BYTES:
        return None
    version, *segments = key.split("/")
    try:
        first = segments.index(SEPARATOR)
        second = segments.index(SEPARATOR, first + 1)
        names = [unescape_segment(segment) for segment in segments]
        archive = Archive(
            source=names[0],
            repo="/".join(names[1:first]),
            node=Node(names[first + 1]),
            subdir="/".join(names[first + 2 : second]),
            suffix="/".join(names[second + 1 :]),
        )
    except (ValueError, IndexError, InvalidRequest):
        return None
    return archive if version == KEY_VERSION and archive.key == key else None


def parse_task_id(text: str) -> Archive | None:
    """Return the archive whose task this is, or None if it is nobody's."""
    return None if "/" in text else parse_key(f"{KEY_VERSION}/{text.replace(':', '/')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedFormats:
    """What a host sends by itself: these ``suffixes``, and with ``subdirs`` parts of a tree.

    With ``verbatim``, whatever it sends is wanted as it sends it; else it may be made of something
    that is there already, which spares the host. ``spare`` suffixes are fetched only when the host
    cannot pack a tree in the others.
    """

    suffixes: tuple[str, ...]
    subdirs: bool = True
    verbatim: bool = True
    fallback: tuple[str, ...] = ()

    def wants_verbatim(self, archive: Archive) -> bool:
        return self.verbatim and self.fetchable(archive) == archive

    def fetchable(self, archive: Archive) -> Archive:
        """Return what to fetch for *archive*: itself, or what it can be made of."""
        return replace(
            archive,
            suffix=archive.suffix if archive.suffix in self.suffixes else self.suffixes[0],
            subdir=archive.subdir if self.subdirs else "",
        )

    def candidates(self, archive: Archive) -> tuple[Archive, ...]:
        """Return all that may be fetched for *archive*: the nearest, then the other formats."""
        nearest = self.fetchable(archive)
        suffixes = dict.fromkeys((nearest.suffix, *self.suffixes, *self.fallback))
        return tuple(replace(nearest, suffix=suffix) for suffix in suffixes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive of a source may be at most, so that none can exhaust who reads it.

    ``ratio`` is unpacked to packed bytes. The defaults are some ten times mozilla-central.
    """

    packed_bytes: int = 16 << 30
    unpacked_bytes: int = 128 << 30
    ratio: int = 200
    members: int = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Verified:
    """What a verifier found in a stream that it read through to its whole and sound end.

    ``root`` is the one directory at the top of the archive. ``last_file`` is the path below it of
    the last member that is not a directory. ``links_outside`` counts the symbolic links that lead
    out of it. Only verifiers make these, with ``sealing.seal``.
    """

    sha256: str
    size_bytes: int
    root: str
    last_file: bytes
    links_outside: int

    def __init__(self, *, _sealed: Never) -> None:
        raise TypeError("only a verifier can tell that an archive is whole")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Of what an archive was made, and by what.

    ``key``, ``sha256`` and ``size_bytes`` are those of the archive it was made of. ``converter``
    names all that the bytes depend on besides: the same converter makes the same of the same.
    """

    key: str
    sha256: str
    size_bytes: int
    converter: str


class Completeness(StrEnum):
    """How it is known that an archive has all files of its tree."""

    PROVEN = "proven"
    """It ends with the file that the host lists last."""

    TRUSTED = "trusted"
    """The host was not asked, because the settings say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What makes an archive exist in a region: the record beside its bytes, written last.

    The same in every region, to the byte, but for the region it stands in.
    ``object_key`` is where the bytes are, in each region's bucket. ``source_url`` is where the host
    sent them or, if there was a ``conversion``, what they were made of in the beginning.
    ``completeness`` is None in manifests of releases that did not check it.
    ``links_outside`` is 0 in manifests from before such links were served.
    """

    key: str
    node: Node
    sha256: str
    size_bytes: int
    object_key: str
    root: str
    source_url: str
    created_at: datetime
    conversion: Conversion | None = None
    completeness: Completeness | None = None
    links_outside: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """A committed archive and the regions that hold it, in the configured order; never empty."""

    manifest: Manifest
    regions: tuple[Region, ...]

    def missing_from(self, regions: tuple[Region, ...]) -> tuple[Region, ...]:
        """Return those of *regions* that do not hold the archive."""
        return tuple(region for region in regions if region not in self.regions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A hit: the archive is there, in ``region``.

    ``wanted`` is the region that the client prefers or, if it does not say, is nearest to.
    ``good_until`` tells when the rev that was wanted may name another one; None says never.
    """

    archive: Archive
    manifest: Manifest
    region: Region
    wanted: Region | None
    url: PresignedUrl = field(repr=False)
    good_until: datetime | None = None


class EnqueueOutcome(StrEnum):
    """How a request came to its task."""

    MISS = "miss"
    JOINED = "joined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A miss: a task was created for the archive, or was already running."""

    archive: Archive
    outcome: EnqueueOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A miss of someone who asked that nothing be created."""

    archive: Archive
