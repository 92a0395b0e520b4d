"""Weaves the tars of several repositories into one, in the order of git's trees."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from archiver.errors import InternalError
from archiver.git_objects.tar_blocks import BLOCK, global_header
from archiver.git_objects.tar_cutter import Gap, TarCutter
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.commit_tar import CommitTar
from archiver.sources.git.complete.checkout import Checkout, Plan, within

RECORD_BYTES = 20 * BLOCK
"""Tars are padded to whole tape records."""


async def weave(plan: Plan, *, root: str, comment: bytes) -> AsyncGenerator[bytes, None]:
    """Yield the tar of a complete archive, with *comment* at its first member.

    The members of a submodule, as git packs them, take the place of its empty folder. Raises as
    ``CommitTar.chunks``, and CorruptArchive if git writes another tar than expected.
    """
    start = global_header(plan.superproject.snapshot.archive.node.encode())
    size_bytes = len(start)
    yield start
    async with aclosing(_members(plan.checkout, root, comment)) as pieces:
        async for piece in pieces:
            size_bytes += len(piece)
            yield piece
    end = 2 * BLOCK
    yield bytes(end + -(size_bytes + end) % RECORD_BYTES)


async def _members(
    checkout: Checkout, root: str, comment: bytes = b""
) -> AsyncGenerator[bytes, None]:
    """Yield the members of a repository and of all inside it."""
    snapshot = checkout.snapshot
    top = f"{root}/{checkout.path}" if checkout.path else root
    prefix = f"{top}/".encode()
    subdir = snapshot.archive.subdir
    pointers = checkout.lfs.pointers if checkout.lfs else {}
    cutter = TarCutter(
        folders=frozenset(prefix + path for path in checkout.parts),
        sizes={prefix + path: each.pointer.size_bytes for path, each in pointers.items()},
        comment=comment,
        above=subdir.count("/") + 1 if subdir else 0,
    )
    with within(checkout.origins):
        async with aclosing(CommitTar(snapshot, root=top).chunks()) as chunks:
            async for chunk in chunks:
                for piece in await run_in_thread(cutter.feed, chunk):
                    if not isinstance(piece, Gap):
                        yield piece
                        continue
                    filling = _fill(checkout, piece.name.removeprefix(prefix), root)
                    async with aclosing(filling) as inner:
                        async for each in inner:
                            yield each
        cutter.finish()


def _fill(checkout: Checkout, path: bytes, root: str) -> AsyncGenerator[bytes, None]:
    """Return what replaces the folder of a submodule, or the content of a pointer."""
    if part := checkout.parts.get(path):
        return _members(part, root)
    if checkout.lfs is None:
        raise InternalError("a gap in a tar has no content")
    return checkout.lfs.files.chunks(checkout.lfs.pointers[path].pointer)
