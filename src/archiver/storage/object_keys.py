"""Where a bucket keeps manifests, probes and archives, and the attributes of archives."""

import hashlib
import secrets

from archiver.model import KEY_VERSION, Archive, parse_key
from archiver.names import SEPARATOR, escape_name

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
CACHE_CONTROL = "private, max-age=31536000, immutable"
"""The bytes under a key never change. Private, because presigned URLs are secrets."""


def bucket_id(server: str, bucket: str) -> str:
    return hashlib.sha256(f"{server}\0{bucket}".encode()).hexdigest()[:16]


def random_probe_key() -> str:
    return f"probes/{secrets.randbelow(PROBES):02}"


def manifest_key(archive: Archive) -> str:
    return f"manifests/{archive.key}.json"


def manifest_prefix(source: str | None) -> str:
    return f"manifests/{KEY_VERSION}/{source or ''}"


def nodes_prefix(source: str, repo: str) -> str:
    """Return the prefix of the manifests of *repo*. A node follows it."""
    return f"{manifest_prefix(source)}/{escape_name(repo)}/{SEPARATOR}/"


def parse_manifest_key(object_key: str) -> Archive | None:
    archive = parse_key(object_key.removeprefix("manifests/").removesuffix(".json"))
    return archive if archive and manifest_key(archive) == object_key else None


def object_attributes(object_key: str) -> dict[str, str]:
    name = object_key.rpartition("/")[2]
    known = (kind for suffix, kind in CONTENT_TYPES.items() if name.endswith(suffix))
    return {
        "Content-Type": next(known, "application/octet-stream"),
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": CACHE_CONTROL,
    }
