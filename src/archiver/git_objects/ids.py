"""The ids of git's objects."""

import hashlib

SHA1_DIGITS = 40
SHA256_DIGITS = 64


def new_object_hash(kind: str, size_bytes: int, *, digits: int) -> "hashlib._Hash":
    """Return the hash of an object's id, to be updated with its content."""
    algorithm = hashlib.sha256 if digits == SHA256_DIGITS else hashlib.sha1
    return algorithm(b"%s %d\0" % (kind.encode(), size_bytes), usedforsecurity=False)


def object_id(kind: str, content: bytes, *, digits: int) -> str:
    """Return the id of an object: *kind* is blob, tree, commit or tag."""
    hashed = new_object_hash(kind, len(content), digits=digits)
    hashed.update(content)
    return hashed.hexdigest()
