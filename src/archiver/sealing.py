"""Makes ``Verified``. For verifiers alone: ``make check`` lets nobody else import it."""

from archiver.model import Verified


def seal(
    *,
    sha256: str,
    size_bytes: int,
    root: str,
    last_file: bytes = b"",
    links_outside: int = 0,
) -> Verified:
    """Return the word of a verifier that has read a whole and sound archive to its end."""
    verified: Verified = object.__new__(Verified)
    found = {
        "sha256": sha256,
        "size_bytes": size_bytes,
        "root": root,
        "last_file": last_file,
        "links_outside": links_outside,
    }
    for name, value in found.items():
        object.__setattr__(verified, name, value)
    return verified
