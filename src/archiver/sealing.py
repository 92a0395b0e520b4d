"""Makes ``Verified``. For verifiers alone: ``make check`` lets nobody else import it."""

from archiver.model import Verified


def seal(*, sha256: str, size_bytes: int, root: str) -> Verified:
    """Return the word of a verifier that has read a whole and sound archive to its end."""
    verified: Verified = object.__new__(Verified)
    for name, value in (("sha256", sha256), ("size_bytes", size_bytes), ("root", root)):
        object.__setattr__(verified, name, value)
    return verified
