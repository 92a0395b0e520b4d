"""Plans a complete archive: finds the commits of all submodules, and has them fetched."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from archiver.errors import (
    BadGitmodules,
    EmptyTree,
    InternalError,
    InvalidRequest,
    PartOrigin,
    SubmoduleMissing,
    SubmoduleRefused,
    UnknownRepo,
    UnknownRev,
)
from archiver.git_objects import SUBMODULE
from archiver.model import Archive, Node
from archiver.names import display_path, is_name
from archiver.ports.source import OnReceived
from archiver.runtime.tasks import all_or_none
from archiver.runtime.threads import run_in_thread
from archiver.sources.config import Attributes
from archiver.sources.git.attributes import MAY_BE_OMITTED, leave_out
from archiver.sources.git.commit import Gitlink
from archiver.sources.git.complete.budget import Budget
from archiver.sources.git.complete.checkout import Checkout, Plan, within
from archiver.sources.git.complete.gitmodules import read_submodule_urls
from archiver.sources.git.complete.hosts import GitHost, GitHosts
from archiver.sources.git.complete.received import Received
from archiver.sources.git.complete.repository_lfs import find_lfs
from archiver.sources.git.complete.submodule_url import plain_url
from archiver.sources.git.snapshot import Snapshot

FETCHES_AT_A_TIME = 8
"""Of one archive. The seats of each host bound those of the whole fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A submodule at ``path`` in the archive, and the repositories that its URL may mean."""

    path: str
    url: str
    node: Node
    subdir: str
    candidates: Sequence[tuple[GitHost, str]]
    around: tuple[PartOrigin, ...]


class Planner:
    """Plans *archive*, whose superproject is on *host*. What it opens, *stack* closes."""

    def __init__(
        self,
        archive: Archive,
        *,
        host: GitHost,
        hosts: GitHosts,
        stack: AsyncExitStack,
        on_received: OnReceived | None,
    ) -> None:
        self._archive = archive
        self._host = host
        self._hosts = hosts
        self._stack = stack
        self._received = Received(on_received)
        self._budget = Budget(archive, host.config)
        self._fetches = asyncio.Semaphore(FETCHES_AT_A_TIME)
        self._known: dict[str, PartOrigin] = {}

    @property
    def shows_progress(self) -> bool:
        """Whether everybody may read all submodules that are known so far."""
        return not self._received.is_mute

    @property
    def origins(self) -> tuple[PartOrigin, ...]:
        """Those of all submodules that are known so far, in the order in which they were found.

        Of those from one repository, the first is enough, because clients may read all or none.
        """
        found: dict[tuple[str, str], PartOrigin] = {}
        for origin in self._known.values():
            found.setdefault((origin.source, origin.repo), origin)
        found.pop((self._archive.source, self._archive.repo), None)
        return tuple(found.values())

    async def plan(self) -> Plan:
        """Return the plan, with open snapshots. Raises as ``Source.open``."""
        snapshot = await self._host.snapshots.open(
            self._stack, self._archive, on_received=self._received.counter()
        )
        around: list[Checkout] = []
        checkout = Checkout(path="", host=self._host, snapshot=snapshot, parts={})
        while gitlink := checkout.snapshot.gitlink:
            around.append(checkout)
            await self._require_kept(checkout, gitlink)
            subdir = checkout.snapshot.archive.subdir[len(gitlink.path) + 1 :]
            (wanted,) = await self._wanted(checkout, [gitlink], subdir=subdir)
            checkout = await self._open(wanted)
        plan = Plan(around=tuple(around), checkout=await self._with_parts(checkout))
        for each in plan.checkout.walk():
            await self._fetch_lfs(each)
        return plan

    async def _require_kept(self, checkout: Checkout, gitlink: Gitlink) -> None:
        """Return if no attribute leaves the submodule out. Raises EmptyTree."""
        snapshot = checkout.snapshot
        if checkout.host.config.git.attributes is not Attributes.HONOUR:
            return
        with within(checkout.origins), snapshot.mirror.translating():
            cpu = snapshot.listing.cpu
            if await leave_out(snapshot.mirror, snapshot.archive, gitlink.path, cpu=cpu):
                raise EmptyTree(
                    f"the attributes of {snapshot.archive.repo} leave out all files of "
                    f"{gitlink.path}"
                )

    async def _fetch_lfs(self, checkout: Checkout) -> None:
        """Have the host send the LFS files of a repository, a submodule's under a seat."""
        if checkout.lfs is None:
            return
        with within(checkout.origins):
            async with self._seat(checkout):
                await checkout.lfs.files.fetch(self._received.counter())

    def _seat(self, checkout: Checkout) -> AbstractAsyncContextManager[object]:
        return self._hosts.seat(checkout.host) if checkout.origins else nullcontext()

    async def _with_lfs(self, checkout: Checkout) -> Checkout:
        """Return *checkout* with its LFS files, which are not fetched yet."""
        if not self._archive.lfs or not checkout.snapshot.listing.entries:
            return checkout
        if self._hosts.lfs_cache is None:
            raise InternalError("only workers have LFS files")
        snapshot, client = checkout.snapshot, checkout.host.lfs
        with within(checkout.origins), snapshot.mirror.translating():
            lfs = await find_lfs(snapshot, client, self._hosts.lfs_cache)
        if lfs:
            self._budget.add_bytes(lfs.size_bytes)
        return replace(checkout, lfs=lfs)

    async def _with_parts(self, checkout: Checkout) -> Checkout:
        """Return *checkout* with its submodules, and theirs."""
        snapshot = checkout.snapshot
        self._budget.add_files(snapshot.listing)
        checkout = await self._with_lfs(checkout)
        if not self._archive.submodules or not snapshot.listing.submodules:
            return checkout
        with within(checkout.origins):
            gitlinks = await run_in_thread(_gitlinks, snapshot)
            wanted = await self._wanted(checkout, gitlinks)
        parts = await all_or_none(map(self._part, wanted))
        paths = (gitlink.path.encode() for gitlink in gitlinks)
        return replace(checkout, parts=dict(zip(paths, parts, strict=True)))

    async def _part(self, wanted: _Wanted) -> Checkout:
        async with self._fetches:
            checkout = await self._open(wanted)
        return await self._with_parts(checkout)

    async def _wanted(
        self, checkout: Checkout, gitlinks: Sequence[Gitlink], *, subdir: str = ""
    ) -> list[_Wanted]:
        """Return what is wanted for *gitlinks* of a repository, before anything is fetched.

        Raises SubmoduleRefused, BadGitmodules, or ArchiveTooLarge.
        """
        if not gitlinks:
            return []
        self._budget.add_submodules(len(gitlinks), depth=len(checkout.origins) + 1)
        snapshot = checkout.snapshot
        with within(checkout.origins), snapshot.mirror.translating():
            urls = await read_submodule_urls(snapshot.mirror, snapshot.record)
            find = partial(self._find, checkout, urls, subdir)
            return [find(gitlink) for gitlink in gitlinks]

    def _find(
        self, checkout: Checkout, urls: Mapping[str, str], subdir: str, gitlink: Gitlink
    ) -> _Wanted:
        path = f"{checkout.path}/{gitlink.path}" if checkout.path else gitlink.path
        url = urls.get(gitlink.path)
        if not url:
            raise BadGitmodules(f"the .gitmodules of the commit has no URL for {path}")
        repo = checkout.snapshot.archive.repo
        candidates = self._hosts.find(url, host=checkout.host, repo=repo)
        if not candidates:
            raise SubmoduleRefused.of(path, plain_url(url))
        likeliest, likeliest_repo = candidates[0]
        self._known[path] = PartOrigin(
            path=path, url=plain_url(url), source=likeliest.name, repo=likeliest_repo
        )
        if not all(each.config.git.open for each, _ in candidates):
            self._received.is_mute = True
        return _Wanted(
            path=path,
            url=plain_url(url),
            node=gitlink.node,
            subdir=subdir,
            candidates=candidates,
            around=checkout.origins,
        )

    async def _open(self, wanted: _Wanted) -> Checkout:
        """Return the submodule, without its own ones, from the first repository that exists.

        Raises SubmoduleRefused if there is none, SubmoduleMissing if that lacks the commit, or as
        ``Source.open``.
        """
        unknown: Exception | None = None
        for host, repo in wanted.candidates:
            origin = PartOrigin(path=wanted.path, url=wanted.url, source=host.name, repo=repo)
            origins = (*wanted.around, origin)
            try:
                with within(origins):
                    snapshot = await self._open_snapshot(host, repo, wanted)
            except (UnknownRepo, InvalidRequest) as exc:
                unknown = exc
                continue
            self._known[wanted.path] = origin
            return Checkout(
                path=wanted.path, host=host, snapshot=snapshot, origins=origins, parts={}
            )
        with within(wanted.around):
            raise SubmoduleRefused.of(wanted.path, wanted.url) from unknown

    async def _open_snapshot(self, host: GitHost, repo: str, wanted: _Wanted) -> Snapshot:
        archive = replace(
            self._archive, source=host.name, repo=repo, node=wanted.node, subdir=wanted.subdir
        )
        missing = SubmoduleMissing(
            f"the submodule {wanted.path}: {host.name} has no commit {wanted.node} in {repo}"
        )
        self._received.report()  # a host that is silent is asked for something
        if host.config.git.reachable and not await host.has_node(repo, wanted.node):
            raise missing
        try:
            return await host.snapshots.open(
                self._stack,
                archive,
                on_received=self._received.counter(),
                seat=partial(self._hosts.seat, host),
                may_be_empty=True,
            )
        except UnknownRev as exc:
            raise missing from exc


def _gitlinks(snapshot: Snapshot) -> list[Gitlink]:
    """Return the submodules in the archive: those that no attribute leaves out.

    Raises BadGitmodules for a path that no archive of Archiver's can have as its subdir.
    """
    return list(_iter_gitlinks(snapshot))


def _iter_gitlinks(snapshot: Snapshot) -> Iterator[Gitlink]:
    for entry, effect in zip(snapshot.listing, snapshot.effects, strict=False):
        if entry.mode != SUBMODULE or effect == MAY_BE_OMITTED:
            continue
        path = entry.path.decode(errors="replace")
        if path.encode() != entry.path or not is_name(path):
            raise BadGitmodules(f"the submodule {display_path(entry.path)} has an unusable path")
        yield Gitlink(path, Node(entry.object_id))
