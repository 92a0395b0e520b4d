"""Where a bucket keeps manifests, probes and archives, and the attributes of archives."""

import hashlib
import re
import secrets

from archiver.manifest_check import ARCHIVES
from archiver.model import KEY_VERSION, NODE_MARKS, Archive, Node, parse_key
from archiver.names import SEPARATOR, escape_name

MANIFESTS = "manifests/"
PROBE_FOLDER = "probes/"
PINS = "pins/"
TOMBSTONES = "tombstones/"

FOLDERS = (ARCHIVES, MANIFESTS, PINS, PROBE_FOLDER, TOMBSTONES)
"""All folders in which Archiver writes. ``archiver fsck`` calls objects elsewhere foreign."""

PROBES = 64
"""Number of probe objects in a bucket. It bounds them however many processes come and go."""

EMPTY_PREFIX = "check/"
"""A prefix without objects. Listing it is the cheapest request that needs a working bucket."""

CONTENT_TYPES = {
    ".tar.gz": "application/gzip",
    ".tar.bz2": "application/x-bzip2",
    ".tar.xz": "application/x-xz",
    ".tar.zst": "application/zstd",
    ".tar": "application/x-tar",
    ".zip": "application/zip",
}
_PROBE = re.compile(r"probes/\d{2}")

CACHE_CONTROL = "private, max-age=31536000, immutable"
"""The bytes under a key never change. Private, because presigned URLs are secrets."""


def bucket_id(server: str, bucket: str) -> str:
    return hashlib.sha256(f"{server}\0{bucket}".encode()).hexdigest()[:16]


def random_probe_key() -> str:
    return f"{PROBE_FOLDER}{secrets.randbelow(PROBES):02}"


def is_probe_key(object_key: str) -> bool:
    return _PROBE.fullmatch(object_key) is not None


def manifest_key(archive: Archive) -> str:
    return f"{MANIFESTS}{archive.key}.json"


def manifest_prefix(source: str | None) -> str:
    return f"{MANIFESTS}{KEY_VERSION}/{source or ''}"


def manifests_folder(source: str | None) -> str:
    """Return the folder of all manifests, or of those of *source*."""
    return f"{manifest_prefix(source)}/" if source else MANIFESTS


def archives_prefix(source: str | None) -> str:
    return f"{ARCHIVES}{KEY_VERSION}/{source}/" if source else ARCHIVES


def nodes_prefix(source: str, repo: str) -> str:
    """Return the prefix of the manifests of *repo*. A node follows it."""
    return f"{manifest_prefix(source)}/{escape_name(repo)}/{SEPARATOR}/"


def trace_prefixes(source: str, repo: str, node: Node | None) -> tuple[str, ...]:
    """Return the prefixes of all that exists of *repo*, or of one *node* of it."""
    below = nodes_prefix(source, repo).removeprefix(MANIFESTS)
    nodes = [f"{node}{marks}/" for marks in NODE_MARKS] if node else [""]
    folders = (MANIFESTS, ARCHIVES, TOMBSTONES)
    return tuple(f"{folder}{below}{each}" for folder in folders for each in nodes)


def parse_trace(object_key: str) -> Archive | None:
    """Return the archive to which a manifest, a tombstone or an object belongs."""
    if object_key.startswith(TOMBSTONES):
        return parse_tombstone_key(object_key)
    if not object_key.startswith(ARCHIVES):
        return parse_manifest_key(object_key)
    key, _, _ = object_key.removeprefix(ARCHIVES).rpartition("/")[0].rpartition("/")
    return parse_key(key)


def pin_key(archive: Archive) -> str:
    return f"{PINS}{archive.key}.json"


def parse_pin_key(object_key: str) -> Archive | None:
    archive = parse_key(object_key.removeprefix(PINS).removesuffix(".json"))
    return archive if archive and pin_key(archive) == object_key else None


def tombstone_key(archive: Archive) -> str:
    return f"{TOMBSTONES}{archive.key}.json"


def parse_tombstone_key(object_key: str) -> Archive | None:
    archive = parse_key(object_key.removeprefix(TOMBSTONES).removesuffix(".json"))
    return archive if archive and tombstone_key(archive) == object_key else None


def parse_manifest_key(object_key: str) -> Archive | None:
    archive = parse_key(object_key.removeprefix(MANIFESTS).removesuffix(".json"))
    return archive if archive and manifest_key(archive) == object_key else None


def object_attributes(object_key: str) -> dict[str, str]:
    name = object_key.rpartition("/")[2]
    known = (kind for suffix, kind in CONTENT_TYPES.items() if name.endswith(suffix))
    return {
        "Content-Type": next(known, "application/octet-stream"),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": CACHE_CONTROL,
    }
