"""Opens the stream of a complete archive."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from archiver.errors import WrongTree
from archiver.model import Archive
from archiver.ports.source import OnReceived, Stream
from archiver.sources.git.complete.checkout import in_any_part
from archiver.sources.git.complete.complete_check import CompleteCheck
from archiver.sources.git.complete.hosts import GitHost, GitHosts
from archiver.sources.git.complete.planner import Planner
from archiver.sources.git.complete.record import record_of
from archiver.sources.git.complete.weaving import weave
from archiver.sources.git.root import root_directory


@asynccontextmanager
async def open_complete(
    archive: Archive,
    *,
    url: str,
    host: GitHost,
    hosts: GitHosts,
    on_received: OnReceived | None,
) -> AsyncIterator[Stream]:
    """Yield the stream of *archive*, whose superproject is on *host*, with *url*.

    Any error in the block may be about a file of a submodule, so only clients that may read all of
    them learn about it. Raises as ``Source.open``.
    """
    async with AsyncExitStack() as stack:
        planner = Planner(archive, host=host, hosts=hosts, stack=stack, on_received=on_received)
        plan = await planner.plan()
        root = root_directory(host.config.git.root_template, archive)
        check = CompleteCheck(plan)
        stream = Stream(
            url=url,
            root=root,
            client_root=root,
            size_bytes=0,
            chunks=weave(plan, root=root, comment=record_of(plan).comment()),
            tree_check=check,
        )
        with in_any_part(plan):
            try:
                yield stream
            except WrongTree:
                _blame(check)
                raise


def _blame(check: CompleteCheck) -> None:
    """Have the mirrors of the repositories with other files replaced: all if that is not known."""
    checks = list(check.walk())
    for each in [each for each in checks if each.is_wrong] or checks:
        each.checkout.host.snapshots.blame(each.checkout.snapshot)
