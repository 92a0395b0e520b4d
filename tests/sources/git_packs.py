"""Packs as a host sends them, and mirrors to receive them."""

import zlib
from collections.abc import AsyncGenerator, Sequence
from hashlib import sha1
from pathlib import Path

from archiver.model import Node
from archiver.sources.git.mirror import Mirror
from archiver.sources.git.mirrors import Mirrors
from archiver.sources.git.program import find_git
from tests.git_repositories import GitRepository

ROOM = 64 << 30
MAX_BYTES = 1 << 30


def new_mirrors(folder: Path, *, max_bytes: int = ROOM) -> Mirrors:
    return Mirrors(folder=folder, max_bytes=max_bytes, git=find_git())


def pack_of(repository: GitRepository, node: str, haves: Sequence[str] = ()) -> bytes:
    """Return the pack of one commit without its parents; thin if there are *haves*."""
    lines = [f"--shallow {each}" for each in (node, *haves)]
    lines += [node, *(f"^{each}" for each in haves)]
    return repository.git_bytes(
        *("pack-objects", "--revs", "--thin", "--shallow", "--stdout", "--delta-base-offset", "-q"),
        stdin="".join(f"{line}\n" for line in lines).encode(),
    )


async def pieces(data: bytes, piece_bytes: int = 1 << 16) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), piece_bytes):
        yield data[start : start + piece_bytes]


async def add(mirror: Mirror, pack: bytes, *nodes: str) -> None:
    """Receive *pack*, and remember its *nodes*."""
    async with mirror.fetch_lock():
        await mirror.receive(pieces(pack), max_bytes=MAX_BYTES)
    for node in nodes:
        mirror.remember(Node(node))


async def archive(mirror: Mirror, node: str) -> bytes:
    """Return the tar of a node, as git makes it from the mirror."""
    async with mirror.git.stream("archive", "--format=tar", node) as chunks:
        return b"".join([chunk async for chunk in chunks])


def delta_bomb(size_bytes: int) -> bytes:
    """Return a pack of some hundred bytes whose second object claims to have *size_bytes*.

    Format: https://git-scm.com/docs/gitformat-pack.
    """
    base = zlib.compress(b"x")
    delta = zlib.compress(_size(1) + _size(size_bytes) + b"\x90\x01")
    first = bytes([0x31]) + base
    second = bytes([0x60 | (len(zlib.decompress(delta)) & 0xF)]) + bytes([len(first)]) + delta
    body = b"PACK" + (2).to_bytes(4) + (2).to_bytes(4) + first + second
    return body + sha1(body, usedforsecurity=False).digest()


def _size(number: int) -> bytes:
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
