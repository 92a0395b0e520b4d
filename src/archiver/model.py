"""Archiver's values: frozen, pure, independent of HTTP, S3 and NATS."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Never, NewType

from archiver.errors import InvalidRequest, PartOrigin
from archiver.names import (
    NAME_MAX_BYTES,
    SEPARATOR,
    escape_name,
    require_name,
    require_rev,
    unescape_segment,
)
from archiver.record_versions import is_word
from archiver.tree_proof import MayRead, TreeProof

Node = NewType("Node", str)
"""The full id of a commit in lower case: 40 (SHA-1) or 64 (SHA-256) hex digits."""

TaskId = NewType("TaskId", str)
"""A key without its version, with ``:`` for ``/``. Parses back to its archive."""

Region = NewType("Region", str)
"""A name with exactly one bucket."""

PresignedUrl = NewType("PresignedUrl", str)
"""A time-limited link: a secret, never logged or stored."""

SUFFIXES = ("tar.gz", "tar.bz2", "tar.xz", "tar.zst", "tar", "zip")
"""The formats of archives. Each can be verified, and converted from every other."""

KEY_VERSION = "v1"

KEY_MAX_BYTES = NAME_MAX_BYTES
"""S3 allows keys of 1024 bytes; prefix, attempt and file name need up to 230 of them."""

FLAGS = ("submodules", "lfs")
"""Parameters for files that a plain archive lacks. Absence means no."""

LFS_MARK, SUBMODULES_MARK = "~lfs", "~submodules"
"""What follows the node in the key of an archive with such files."""

NODE_MARKS = ("", LFS_MARK, SUBMODULES_MARK, LFS_MARK + SUBMODULES_MARK)
"""All that can follow a node in a key."""

AFTER_MARKS = "~~"
"""Sorts after them."""

STEM_MAX_CHARS = 150

NODE_ALLOWED = "40 or 64 hex digits"

_NODE = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ANY_NODE = Node("0" * 40)


def parse_node(text: str) -> Node | None:
    """Return *text* as a node, or None if it is not 40 or 64 hex digits of either case."""
    lowered = text.lower()
    return Node(lowered) if _NODE.fullmatch(lowered) else None


def rev_hash(source: str, repo: str, rev: str) -> str:
    """Return 64 hex digits that identify a rev of a repo, where its name would be too long."""
    return hashlib.sha256(f"{source}\0{repo}\0{rev}".encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRequest:
    """A parsed request. ``rev`` is the client's text, and may move."""

    source: str
    repo: str
    rev: str
    subdir: str
    suffix: str
    submodules: bool = False
    lfs: bool = False
    preferred_region: Region | None = None
    _archive: "Archive" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        node = parse_node(self.rev)
        if not node:
            require_rev(self.rev)
        archive = Archive(  # rejects names that do not fit into a key before a host is asked
            source=self.source,
            repo=self.repo,
            node=node or _ANY_NODE,
            subdir=self.subdir,
            suffix=self.suffix,
            submodules=self.submodules,
            lfs=self.lfs,
        )
        object.__setattr__(self, "_archive", archive)

    @property
    def flags(self) -> tuple[str, ...]:
        return self._archive.flags

    def archive_at(self, node: Node) -> "Archive":
        """Return the requested archive, whose rev resolved to *node*."""
        archive = self._archive
        return archive if archive.node == node else replace(archive, node=node)


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The identity of immutable bytes. Its names are valid, and fit into a key.

    ``subdir`` is empty for the whole tree. With ``submodules``, each submodule has the files of its
    commit; with ``lfs``, each pointer of Git LFS is replaced by its file.
    """

    source: str
    repo: str
    node: Node
    subdir: str
    suffix: str
    submodules: bool = False
    lfs: bool = False

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
        """The archive's place in every bucket: ``v1/source/repo…/-/node/subdir…/-/suffix``.

        Keys are injective, because no segment of a repo or subdir is ``-``. No key is the folder of
        another, because exactly one segment follows the second ``-``. ``~lfs`` and ``~submodules``
        follow the node of an archive that has such files. No escape is in lower case.
        """
        node = self.node + (LFS_MARK if self.lfs else "")
        node += SUBMODULES_MARK if self.submodules else ""
        tree = f"{escape_name(self.source)}/{escape_name(self.repo)}/{SEPARATOR}/{node}"
        subdir = f"{escape_name(self.subdir)}/" if self.subdir else ""
        return f"{KEY_VERSION}/{tree}/{subdir}{SEPARATOR}/{escape_name(self.suffix)}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of those FLAGS that are set. The archive is complete if there are any."""
        set_flags = {"submodules": self.submodules, "lfs": self.lfs}
        return tuple(flag for flag in FLAGS if set_flags[flag])

    @property
    def task_id(self) -> TaskId:
        return TaskId(self.key.removeprefix(f"{KEY_VERSION}/").replace("/", ":"))

    @cached_property
    def key_hash(self) -> str:
        """SHA-256 of the key, for uses that its length or characters would break."""
        return hashlib.sha256(self.key.encode()).hexdigest()

    @property
    def basename(self) -> str:
        return self.repo.rpartition("/")[2]

    @property
    def file_name(self) -> str:
        """A name for saved files: ASCII, no spaces, no quotes. Not unique."""
        parts = [self.basename, self.node[:12], *(self.subdir.split("/") if self.subdir else [])]
        stem = re.sub(r"[^A-Za-z0-9._+-]", "-", "-".join(parts)).lstrip(".-")
        marks = "".join(f"-{flag}" for flag in self.flags)
        return f"{stem[: STEM_MAX_CHARS - len(marks)]}{marks}.{self.suffix}"


def parse_key(key: str) -> Archive | None:
    """Return the archive with this key; None if it is not the key of an archive."""
    if len(key) > KEY_MAX_BYTES:
        return None
    version, *segments = key.split("/")
    try:
        first = segments.index(SEPARATOR)
        second = segments.index(SEPARATOR, first + 1)
        names = [unescape_segment(segment) for segment in segments]
        node, *marks = segments[first + 1].split("~")
        archive = Archive(
            source=names[0],
            repo="/".join(names[1:first]),
            node=Node(node),
            subdir="/".join(names[first + 2 : second]),
            suffix="/".join(names[second + 1 :]),
            submodules=SUBMODULES_MARK[1:] in marks,
            lfs=LFS_MARK[1:] in marks,
        )
    except (ValueError, IndexError, InvalidRequest):
        return None
    return archive if version == KEY_VERSION and archive.key == key else None


def parse_task_id(text: str) -> Archive | None:
    """Return the archive of this task id; None if it is not a task id."""
    return None if "/" in text else parse_key(f"{KEY_VERSION}/{text.replace(':', '/')}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of an archive, which protect its readers.

    ``ratio`` is that of unpacked to packed bytes. The defaults are some ten times mozilla-central.
    """

    packed_bytes: int = 16 << 30
    unpacked_bytes: int = 128 << 30
    ratio: int = 200
    members: int = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Verified:
    """A verifier's measures of a stream that it read to a valid end.

    ``root`` is the directory at the top of the archive. ``last_file`` is the path, below the root,
    of the last member that is not a directory. ``links_outside`` counts symbolic links that lead
    out of the root. ``proof`` is set if the stream was compared with a git commit. Only verifiers
    create it, with ``sealing.seal``.
    """

    sha256: str
    size_bytes: int
    root: str
    last_file: bytes
    links_outside: int
    proof: TreeProof | None

    def __init__(self, *, _sealed: Never) -> None:
        raise TypeError("only a verifier creates Verified")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """The input of a conversion, and the converter.

    ``key``, ``sha256`` and ``size_bytes`` describe the input. ``converter`` names everything else
    that determines the bytes: the same converter makes the same bytes from the same input. The tar
    of a git commit exists only during the conversion: its ``sha256`` is empty, and its size 0.
    """

    key: str
    sha256: str
    size_bytes: int
    converter: str

    @property
    def is_of_passing_input(self) -> bool:
        return not self.sha256 and not self.size_bytes


class Completeness(StrEnum):
    """How an archive is known to have all files of its tree.

    A value of a later release is read as TRUSTED, which proves nothing.
    """

    PROVEN = "proven"
    """Its last file is the last file that the host lists."""

    TRUSTED = "trusted"
    """The settings trust the host, so it was not asked."""

    @classmethod
    def _missing_(cls, value: object) -> "Completeness | None":
        return cls.TRUSTED if is_word(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The record that makes an archive exist in a region. It is written after the bytes.

    Except for the region's name, it is identical in every region. ``object_key`` is the key of the
    bytes in each bucket. ``source_url`` is the host's address of the bytes, or of the first input
    of a ``conversion``. Manifests of early releases lack ``completeness``, and have 0 for
    ``links_outside``. Only archives of git commits have a ``proof``. ``supersedes`` is the SHA-256
    of other bytes that the archive had before it expired.
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
    proof: TreeProof | None = None
    supersedes: str | None = None

    def without_commit(self) -> "Manifest":
        """Return the manifest for a place with little space. It is equal to this one."""
        return replace(self, proof=self.proof.without_commit()) if self.proof else self

    def first_hidden(self, may_read: MayRead) -> PartOrigin | None:
        """Return the first part that a client may not read, if any.

        The archive is as private as that part: to the client, it does not exist.
        """
        return self.proof.first_hidden(may_read) if self.proof else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """The record of an archive that expired: what its manifest promised, and when that ended.

    ``object_key`` is that of the bytes, which stay until clients' presigned URLs have ended.
    """

    key: str
    node: Node
    sha256: str
    size_bytes: int
    object_key: str
    expired_at: datetime

    @classmethod
    def of(cls, manifest: Manifest, *, expired_at: datetime) -> "Tombstone":
        return cls(
            key=manifest.key,
            node=manifest.node,
            sha256=manifest.sha256,
            size_bytes=manifest.size_bytes,
            object_key=manifest.object_key,
            expired_at=expired_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """A committed archive and the regions that hold it, in the configured order; never empty."""

    manifest: Manifest
    regions: tuple[Region, ...]

    def missing_from(self, regions: tuple[Region, ...]) -> tuple[Region, ...]:
        """Return those of *regions* that do not hold the archive."""
        return tuple(region for region in regions if region not in self.regions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Keeps an archive: it is purged only on an explicit order. Names the client and its reason."""

    principal: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A hit: the archive exists in ``region``.

    ``requested_region`` is the one that the client prefers or, without a preference, is nearest to.
    ``good_until`` is when the requested rev may resolve to another node; None means never.
    """

    archive: Archive
    manifest: Manifest
    region: Region
    requested_region: Region | None
    url: PresignedUrl = field(repr=False)
    good_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The archive exists, and no client is to be sent there."""

    archive: Archive


class EnqueueOutcome(StrEnum):
    """Whether a request created its task or joined an existing one."""

    CREATED = "created"
    JOINED = "joined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A miss: a task was created for the archive, or already existed."""

    archive: Archive
    outcome: EnqueueOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """A miss of a request that must not create a task."""

    archive: Archive
