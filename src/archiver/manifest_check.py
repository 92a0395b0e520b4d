"""Checks that a stored manifest can belong to its archive.

Buckets and NATS may be written by others. Values that fail these checks never reach a presigned
URL, a header or a log line.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from archiver.git_objects import object_id
from archiver.model import (
    SUFFIXES,
    Archive,
    Completeness,
    Conversion,
    Manifest,
    Node,
    Tombstone,
    parse_key,
)
from archiver.names import is_name
from archiver.tree_proof import COMMIT_MAX_BYTES, LISTED_PATH_MAX_CHARS, LfsFile, Part, TreeProof

ARCHIVES = "archives/"
"""The prefix of all objects with archives' bytes."""

OBJECT_MAX_BYTES = 48 << 40
"""More than S3 stores in one object: 5 TB, or 50 TB in recent versions."""

ROOT_MAX_CHARS = 1024

URL_MAX_CHARS = 8192

CONVERTER_MAX_CHARS = 200

LINKS_MAX = 1 << 40
"""More than the members of any archive."""

YEARS = range(2000, 9999)
"""Years whose moments can be expressed in every time zone."""

CLOCKS_DIFFER = timedelta(days=1)
"""More than the clocks of any fleet."""

SHA256 = re.compile(r"[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]+")
_UPLOAD = re.compile(r"[0-9a-z]{1,64}(-[0-9]{1,9})?")
"""The id of an attempt, and the number of its upload."""

_UPLOAD_AND_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}/[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,255}")
_URL = re.compile(r"https?://\S+")


def is_sha256(text: str) -> bool:
    return SHA256.fullmatch(text) is not None


def object_prefix(archive: Archive) -> str:
    """Return the prefix of all objects with bytes of *archive*, committed or not."""
    return f"{ARCHIVES}{archive.key}/"


def parse_object_key(object_key: str) -> Archive | None:
    """Return the archive under whose key Archiver has written *object_key*; None for other keys.

    Stricter than the check of a manifest, because an object that no manifest names may be deleted.
    """
    folder, _, name = object_key.removeprefix(ARCHIVES).rpartition("/")
    key, _, upload = folder.rpartition("/")
    archive = parse_key(key)
    written = (
        archive is not None
        and archive.suffix in SUFFIXES
        and archive.file_name == name
        and _UPLOAD.fullmatch(upload)
        and _is_object_of(object_key, archive)
    )
    return archive if written else None


def find_invalid_field(manifest: Manifest, archive: Archive) -> str | None:
    """Return the first field of *manifest* that is invalid for *archive*, or None."""
    return next((field for field, valid in _checks(manifest, archive) if not valid), None)


def _checks(manifest: Manifest, archive: Archive) -> Iterator[tuple[str, bool]]:
    yield "key", manifest.key == archive.key
    yield "node", manifest.node == archive.node
    yield "sha256", is_sha256(manifest.sha256)
    yield "size_bytes", _is_size(manifest.size_bytes)
    yield "object_key", _is_object_of(manifest.object_key, archive)
    yield "root", _is_name(manifest.root)
    yield "source_url", _is_url(manifest.source_url)
    yield "created_at", _is_moment(manifest.created_at)
    yield "conversion", manifest.conversion is None or _is_sound(manifest.conversion)
    yield "completeness", manifest.completeness in {None, *Completeness}
    yield "links_outside", 0 <= manifest.links_outside <= LINKS_MAX
    yield "proof", manifest.proof is None or _is_proof(manifest.proof, archive.node)
    yield "supersedes", manifest.supersedes is None or is_sha256(manifest.supersedes)


def is_tombstone(tombstone: Tombstone, archive: Archive) -> bool:
    """Return whether *tombstone* can be that of *archive*.

    If it were of the future, the bytes would stay for years.
    """
    return (
        tombstone.key == archive.key
        and tombstone.node == archive.node
        and is_sha256(tombstone.sha256)
        and _is_size(tombstone.size_bytes)
        and _is_object_of(tombstone.object_key, archive)
        and _is_moment(tombstone.expired_at)
        and tombstone.expired_at <= datetime.now(UTC) + CLOCKS_DIFFER
    )


def _is_moment(moment: datetime) -> bool:
    return moment.tzinfo is not None and moment.year in YEARS


def _is_size(size_bytes: int) -> bool:
    return 0 <= size_bytes <= OBJECT_MAX_BYTES


def _is_object_of(object_key: str, archive: Archive) -> bool:
    """Return whether it is ``archives/{key}/{attempt}-{upload}/{file name}``.

    Object keys of earlier versions lack the number of the upload.
    """
    prefix = object_prefix(archive)
    rest = object_key.removeprefix(prefix)
    return object_key.startswith(prefix) and _UPLOAD_AND_NAME.fullmatch(rest) is not None


def _is_name(root: str) -> bool:
    valid = _is_short(root, ROOT_MAX_CHARS) and "/" not in root
    return valid and root not in {"", ".", ".."}


def _is_url(text: str) -> bool:
    return _is_short(text, URL_MAX_CHARS) and _URL.fullmatch(text) is not None


def _is_short(text: str, max_chars: int) -> bool:
    return len(text) <= max_chars and text.isprintable()


def _is_sound(conversion: Conversion) -> bool:
    return (
        parse_key(conversion.key) is not None
        and (is_sha256(conversion.sha256) or conversion.is_of_passing_input)
        and _is_size(conversion.size_bytes)
        and _is_short(conversion.converter, CONVERTER_MAX_CHARS)
    )


def _is_proof(proof: TreeProof, node: Node) -> bool:
    """Return whether *proof* can be that of the commit *node*. The commit itself may be left out.

    The id of a commit has as many digits as that of a tree.
    """
    return (
        _is_of_commit(proof, node)
        and all(_is_part(part, len(node)) for part in proof.parts)
        and len(proof.lfs) <= proof.lfs_files
        and all(map(_is_lfs_file, proof.lfs))
    )


def _is_of_commit(proof: TreeProof | Part, node: str) -> bool:
    digits = len(node)
    return (
        len(proof.commit) <= COMMIT_MAX_BYTES
        and (not proof.commit or object_id("commit", proof.commit, digits=digits) == node)
        and len(proof.tree) == digits
        and _HEX.fullmatch(proof.tree) is not None
    )


def _is_part(part: Part, digits: int) -> bool:
    origin = part.origin
    return (
        all(map(is_name, (origin.path, origin.source, origin.repo)))
        and "/" not in origin.source
        and _is_short(origin.url, URL_MAX_CHARS)
        and len(part.node) == digits
        and _HEX.fullmatch(part.node) is not None
        and _is_of_commit(part, part.node)
    )


def _is_lfs_file(file: LfsFile) -> bool:
    return (
        _is_short(file.path, LISTED_PATH_MAX_CHARS)
        and is_sha256(file.sha256)
        and _is_size(file.size_bytes)
    )
