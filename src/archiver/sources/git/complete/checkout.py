"""The repositories of a complete archive, one in another."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from archiver.errors import ArchiverError, PartOrigin
from archiver.sources.git.complete.hosts import GitHost
from archiver.sources.git.complete.repository_lfs import RepositoryLfs
from archiver.sources.git.snapshot import Snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A repository at ``path`` in the archive, which is empty for the superproject.

    ``origins`` are those of this submodule and of the ones around it. ``parts`` are the submodules
    in it whose files are in the archive, by their paths in this repository. ``lfs`` are the files
    of Git LFS in it, if it has any and they are wanted.
    """

    path: str
    host: GitHost
    snapshot: Snapshot
    origins: tuple[PartOrigin, ...] = ()
    parts: "Mapping[bytes, Checkout]"
    lfs: RepositoryLfs | None = None

    def walk(self) -> "Iterator[Checkout]":
        """Yield this one and all inside it, each before those inside it."""
        yield self
        for part in self.parts.values():
            yield from part.walk()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a complete archive consists of.

    ``checkout`` is the repository that the archive's subdir is in. Those ``around`` it, the
    outermost first, only lead to it: the archive has no files of theirs.
    """

    around: tuple[Checkout, ...]
    checkout: Checkout

    @property
    def superproject(self) -> Checkout:
        return self.around[0] if self.around else self.checkout

    def walk(self) -> Iterator[Checkout]:
        yield from self.around
        yield from self.checkout.walk()


@contextmanager
def within(origins: tuple[PartOrigin, ...]) -> Iterator[None]:
    """Have errors in the block say that they are in a submodule of these *origins*.

    An outage of ours is not: it says nothing about the submodule.
    """
    try:
        yield
    except ArchiverError as exc:
        if origins and not exc.origins and not exc.ours:
            exc.in_part(*origins)
        raise
