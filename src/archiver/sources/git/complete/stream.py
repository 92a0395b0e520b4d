"""Opens the stream of a complete archive."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

from archiver.errors import ArchiverError, WrongTree
from archiver.model import Archive
from archiver.ports.source import OnReceived, Stream
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

    Only clients that may read all submodules learn about an error, whatever it is about: to others,
    the first submodule that they may not read is one that no source serves, and no build comes
    further than that. Raises as ``Source.open``.
    """
    async with AsyncExitStack() as stack:
        planner = Planner(archive, host=host, hosts=hosts, stack=stack, on_received=on_received)
        stack.enter_context(_about_all_submodules(planner))
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
            shows_progress=planner.shows_progress,
        )
        try:
            yield stream
        except WrongTree:
            _blame(check)
            raise


@contextmanager
def _about_all_submodules(planner: Planner) -> Iterator[None]:
    """Have errors in the block name all submodules known then as their origins.

    An outage of ours has none: it says nothing about a submodule.
    """
    try:
        yield
    except ArchiverError as exc:
        exc.origins = () if exc.ours else planner.origins
        raise


def _blame(check: CompleteCheck) -> None:
    """Have the mirrors of the repositories with other files replaced: all if that is not known."""
    checks = list(check.walk())
    for each in [each for each in checks if each.is_wrong] or checks:
        each.checkout.host.snapshots.blame(each.checkout.snapshot)
