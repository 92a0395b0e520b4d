"""A world whose archives have a part that comes from another source, and clients to ask for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from archiver.access.access import Access
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.errors import ArchiverError, PartOrigin
from archiver.model import Archive, ArchiveRequest, Copies, PresignedUrl, Region
from archiver.ports.source import OnReceived, Stream
from archiver.ports.storage import Commit, ProveLease
from archiver.testing import FakeSource, MemoryStorage
from archiver.tree_proof import Part, TreeMatch, TreeProof
from tests.memory_world import World

OPEN, VAULT = "open", "vault"
"""The public source of the repo, and the private one of the submodule."""

URL = "https://git.internal.example/firmware.git"
ORIGIN = PartOrigin(path="third_party/firmware", url=URL, source=VAULT, repo="hidden/firmware")
PUBLIC_ORIGIN = PartOrigin(path="lib", url="https://lib.example/lib", source=OPEN, repo="lib")

TOKENS = {name: create_token() for name in ("whole", "outer")}
"""``whole`` covers both sources, ``outer`` only that of the repo."""

GRANTS = {
    "whole": Grant(scope=Scope.ADMIN),
    "outer": Grant(scope=Scope.ADMIN, sources=[OPEN]),
}
POLICY = Policy(
    sources={OPEN: SourcePolicy(), VAULT: SourcePolicy(private=True)},
    grants=GRANTS,
    names={hash_token(token): name for name, token in TOKENS.items()},
)
NARROWED = replace(POLICY, grants={**GRANTS, "whole": GRANTS["outer"]})
"""The policy after the rights of ``whole`` for the submodule were removed."""

ANONYMOUS = "anonymous"
OUTSIDERS = (ANONYMOUS, "outer")


def credentials(caller: str) -> dict[str, str]:
    return {} if caller == ANONYMOUS else {"authorization": f"Bearer {TOKENS[caller]}"}


def part_of(origin: PartOrigin, digit: str = "a") -> Part:
    node, tree = digit * 40, digit * 39 + "0"
    return Part(origin=origin, node=node, commit=b"", tree=tree, match=TreeMatch.EXACT)


PROOF = TreeProof(
    commit=b"",
    tree="d" * 40,
    match=TreeMatch.EXACT,
    parts=(part_of(PUBLIC_ORIGIN, "b"), part_of(ORIGIN)),
)


class PartStorage(MemoryStorage):
    """Buckets in which every archive has the parts of PROOF. ``presigned`` counts the URLs."""

    presigned = 0

    def presign(self, copies: Copies, region: Region, *, method: str) -> PresignedUrl:
        self.presigned += 1
        return super().presign(copies, region, method=method)

    async def commit(self, commit: Commit, *, prove_lease: ProveLease) -> Copies:
        return await super().commit(replace(commit, proof=PROOF), prove_lease=prove_lease)


class PartSource(FakeSource):
    """A host whose archives fail with ``fault``, if there is one."""

    def __init__(self) -> None:
        super().__init__(name=OPEN)
        self.completes = True
        self.fault: ArchiverError | None = None

    @asynccontextmanager
    async def open(
        self, archive: Archive, *, on_received: OnReceived | None = None
    ) -> AsyncIterator[Stream]:
        if self.fault:
            raise self.fault
        plain = replace(archive, submodules=False)
        async with super().open(plain, on_received=on_received) as stream:
            yield stream


@dataclass(kw_only=True)
class PartWorld(World):
    """A world with ``parts`` in all of its archives."""

    source: PartSource = field(default_factory=PartSource)
    storage: PartStorage = field(default_factory=PartStorage)
    access: Access = field(default_factory=lambda: Access(POLICY))

    def complete(self, suffix: str = "tar.gz") -> Archive:
        """Return the archive with submodules."""
        return replace(self.archive(suffix=suffix), submodules=True)

    def wanted_complete(self, suffix: str = "tar.gz") -> ArchiveRequest:
        return replace(self.wanted(suffix=suffix), submodules=True)
