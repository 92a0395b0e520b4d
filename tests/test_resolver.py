"""Revs are cached while valid, and looked up once for all concurrent callers."""

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from archiver.errors import (
    InvalidRequest,
    SourceUnavailable,
    TooManyLookups,
    TooManyWaiters,
    UnknownRepo,
    UnknownRev,
)
from archiver.lookup_line import LookupLimits
from archiver.model import Node
from archiver.ports.index import Resolved
from archiver.resolver import NAME_TTL, Resolution, Resolver
from archiver.testing import FakeSource, MemoryIndex, MemoryStorage
from tests.contracts.storage_backends import an_archive, store
from tests.memory_world import ASH, FILES

T = TypeVar("T")


class Asked:
    """A resolver, its source and its index."""

    def __init__(self) -> None:
        self.source = FakeSource()
        self.storage = MemoryStorage()
        self.index = MemoryIndex(storage=self.storage)
        self.resolver = Resolver(index=self.index, storage=self.storage)
        self.tip = self.source.commit(ASH, FILES, "default")

    async def node(self, rev: str, repo: str = ASH) -> Node:
        return (await self.resolver.resolve(self.source, repo, rev)).node

    async def remember(self, rev: str, node: Node, *, age: timedelta) -> None:
        resolved = Resolved(node=node, at=datetime.now(UTC) - age)
        await self.index.remember(self.source.name, ASH, rev, resolved, share=False)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(scenario)


def test_a_full_node_resolves_to_itself_without_a_request() -> None:
    asked = Asked()
    assert run(asked.node("F" * 40)) == "f" * 40
    assert not asked.source.asked


def test_a_name_may_be_as_long_as_the_nodes_of_other_sources() -> None:
    """Mercurial accepts a tag of 64 hex digits, which would be a node of git."""
    asked = Asked()
    asked.source.commit(ASH, FILES, "b" * 64)
    assert len(run(asked.node("b" * 64))) == 40
    assert asked.source.asked["resolve"] == 1


def test_a_name_is_looked_up_once_and_cached() -> None:
    asked = Asked()

    async def scenario() -> list[Node]:
        return [await asked.node("default") for _ in range(3)]

    assert run(scenario()) == [asked.tip] * 3
    assert asked.source.asked["resolve"] == 1


def test_a_name_is_valid_for_a_while_and_a_prefix_of_a_node_for_good() -> None:
    asked = Asked()

    async def scenario(rev: str) -> datetime | None:
        return (await asked.resolver.resolve(asked.source, ASH, rev)).good_until

    good_until = run(scenario("default"))
    assert good_until
    assert timedelta(0) < good_until - datetime.now(UTC) <= NAME_TTL
    assert run(scenario(asked.tip)) is None
    assert run(scenario(asked.tip[:12])) is None


def test_a_thousand_concurrent_callers_share_one_lookup() -> None:
    asked = Asked()

    async def scenario() -> list[Node]:
        return await asyncio.gather(*(asked.node("default") for _ in range(1000)))

    assert set(run(scenario())) == {asked.tip}
    assert asked.source.asked["resolve"] == 1


def test_an_expired_name_is_looked_up_again() -> None:
    asked = Asked()

    async def scenario() -> Node:
        await asked.remember("default", Node("0" * 40), age=NAME_TTL + timedelta(seconds=1))
        return await asked.node("default")

    assert run(scenario()) == asked.tip


def test_a_cached_name_is_valid_until_it_expires() -> None:
    asked = Asked()

    async def scenario() -> Node:
        await asked.remember("default", Node("0" * 40), age=NAME_TTL - timedelta(seconds=5))
        return await asked.node("default")

    assert run(scenario()) == "0" * 40
    assert not asked.source.asked


def test_all_prefixes_of_a_node_are_one_lookup_cached_for_good() -> None:
    asked = Asked()
    spellings = [asked.tip[:digits] for digits in range(12, 40)]
    spellings += [rev.upper() for rev in spellings]

    async def scenario() -> set[Node]:
        first = {await asked.node(rev) for rev in spellings}
        await asked.remember(asked.tip[:12], asked.tip, age=timedelta(days=1000))
        return first | {await asked.node(rev) for rev in spellings}

    assert run(scenario()) == {asked.tip}
    assert asked.source.asked == {"resolve": 1}
    assert asked.index.shared == {(asked.source.name, ASH, asked.tip[:12])}


def test_a_short_prefix_of_a_node_expires() -> None:
    asked = Asked()

    async def scenario() -> Node:
        await asked.remember(asked.tip[:11], asked.tip, age=timedelta(days=1000))
        return await asked.node(asked.tip[:11])

    assert run(scenario()) == asked.tip
    assert asked.source.asked["resolve"] == 1


@pytest.mark.parametrize(
    ("name", "other"),
    (
        ("20180525123456", "unrelated"),  # release tags are dates here and there
        ("20180525123456", "201805251234"),
        ("DEADBEEFCAFE", "unrelated"),
        ("DEADBEEFCAFE", "deadbeefcafe"),
    ),
)
def test_a_name_of_hex_digits_is_resolved(name: str, other: str) -> None:
    asked = Asked()
    released = asked.source.commit(ASH, {"released": b""}, name)
    asked.source.commit(ASH, {"other": b""}, other)

    async def scenario() -> set[Node]:
        return {await asked.node(name) for _ in range(3)}

    assert run(scenario()) == {released}
    assert asked.source.asked == {"resolve": 2}


def test_unknown_digits_are_looked_up_once_in_both_spellings() -> None:
    asked = Asked()

    async def scenario() -> None:
        for rev in ("0" * 12, "0" * 20, "0" * 20, "0" * 12):
            with pytest.raises(UnknownRev):
                await asked.node(rev)

    run(scenario())
    assert asked.source.asked == {"resolve": 2}


def test_a_name_that_looks_like_a_prefix_of_a_node_may_move() -> None:
    """A branch may be called ``0123456789ab``. The host decides what it resolves to."""
    asked = Asked()
    asked.source.commit(ASH, {"new": b""}, "0" * 12)

    async def scenario() -> Node:
        await asked.remember("0" * 12, Node("1" * 40), age=timedelta(days=1000))
        return await asked.node("0" * 12)

    assert run(scenario()) != "1" * 40
    assert asked.source.asked["resolve"] == 1


@pytest.mark.parametrize(
    ("repo", "rev", "error"), ((ASH, "nobody", UnknownRev), ("nowhere", "default", UnknownRepo))
)
def test_unknown_revs_are_cached(repo: str, rev: str, error: type[Exception]) -> None:
    asked = Asked()

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(error):
                await asked.node(rev, repo)

    run(scenario())
    assert asked.source.asked["resolve"] == 1


def test_a_cached_unknown_rev_keeps_no_frames_alive() -> None:
    """An exception would keep every frame that it passed through, with their variables."""

    class Held:
        pass

    class Forgetful(FakeSource):
        async def resolve(self, repo: str, rev: str) -> Node:
            mine = Held()
            held.append(weakref.ref(mine))
            return await super().resolve(repo, rev)

        async def has_node(self, repo: str, node: Node) -> bool:
            mine = Held()
            held.append(weakref.ref(mine))
            return await super().has_node(repo, node)

    held: list[weakref.ref[Held]] = []
    asked = Asked()
    asked.source = Forgetful()

    async def scenario() -> None:
        for _ in range(2):
            with suppress(UnknownRepo):
                await asked.node("nobody")
            with suppress(UnknownRepo):
                await asked.resolver.require_known(asked.source, ASH, Node("0" * 40))

    run(scenario())
    gc.collect()
    assert [reference() for reference in held] == [None, None]


def test_an_unresponsive_host_is_not_cached() -> None:
    asked = Asked()
    asked.source.outage = SourceUnavailable("away")

    async def scenario() -> Node:
        with pytest.raises(SourceUnavailable):
            await asked.node("default")
        asked.source.outage = None
        return await asked.node("default")

    assert run(scenario()) == asked.tip


def test_a_rev_that_the_source_refuses_is_not_looked_up() -> None:
    asked = Asked()
    with pytest.raises(InvalidRequest):
        run(asked.node("1:2"))
    assert not asked.source.asked


def test_a_resolved_node_is_known_without_a_request() -> None:
    asked = Asked()

    async def scenario() -> None:
        node = await asked.node("default")
        await asked.resolver.require_known(asked.source, ASH, node)

    run(scenario())
    assert asked.source.asked == {"resolve": 1}


def test_a_node_is_looked_up_once() -> None:
    asked = Asked()

    async def scenario() -> None:
        for _ in range(3):
            await asked.resolver.require_known(asked.source, ASH, asked.tip)

    run(scenario())
    assert asked.source.asked == {"known": 1}


def test_an_unknown_node_is_refused_and_looked_up_once() -> None:
    asked = Asked()

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(UnknownRev):
                await asked.resolver.require_known(asked.source, ASH, Node("0" * 40))

    run(scenario())
    assert asked.source.asked == {"known": 1}


def test_lookups_over_the_limit_are_refused_and_waiting_ones_complete() -> None:
    asked = Asked()
    resolver = Resolver(index=asked.index, storage=asked.storage, limits=LookupLimits(in_all=3))

    async def scenario() -> list[object]:
        revs = ("a", "b", "c", "default", "a")
        asking = (resolver.resolve(asked.source, ASH, rev) for rev in revs)
        first = await asyncio.gather(*asking, return_exceptions=True)
        return [*first, (await resolver.resolve(asked.source, ASH, "default")).node]

    a, b, c, refused, joined, later = run(scenario())
    assert all(isinstance(answer, UnknownRev) for answer in (a, b, c, joined))
    assert isinstance(refused, TooManyWaiters)
    assert refused.retry_after
    assert later == asked.tip


def test_limits_of_one_client_or_source_do_not_affect_others() -> None:
    asked = Asked()
    other = FakeSource(name="other")
    elsewhere = other.commit(ASH, FILES, "default")
    resolver = Resolver(
        index=asked.index, storage=asked.storage, limits=LookupLimits(in_all=3, per_client=2)
    )

    async def scenario() -> list[object]:
        asking = [
            *(resolver.resolve(asked.source, ASH, rev, client="a") for rev in ("1", "2", "3")),
            resolver.resolve(asked.source, ASH, "default", client="b"),
            resolver.resolve(asked.source, ASH, "4", client="c"),
            resolver.resolve(other, ASH, "default", client="a"),
            resolver.require_known(asked.source, ASH, Node("0" * 40), client="d"),
        ]
        first = await asyncio.gather(*asking, return_exceptions=True)
        return [*first, await resolver.resolve(asked.source, ASH, "default", client="a")]

    *unknown, third, b, c, there, d, later = run(scenario())
    assert [type(answer) for answer in unknown] == [UnknownRev] * 2
    assert [type(answer) for answer in (third, c, d)] == [TooManyWaiters] * 3
    assert isinstance(b, Resolution)
    assert b.node == asked.tip
    assert isinstance(there, Resolution)
    assert there.node == elsewhere
    assert later == b


async def _refuse() -> None:
    raise TooManyLookups("no", quota=0, retry_after=NAME_TTL)


def test_only_a_lookup_that_begins_and_was_not_known_before_needs_admission() -> None:
    asked = Asked()

    async def resolve(rev: str) -> Node:
        return (await asked.resolver.resolve(asked.source, ASH, rev, admit=_refuse)).node

    async def scenario() -> None:
        with pytest.raises(TooManyLookups):
            await resolve("default")
        await asked.node("default")
        assert await resolve("default") == asked.tip
        await asked.remember("default", Node("0" * 40), age=NAME_TTL + timedelta(seconds=1))
        assert await resolve("default") == asked.tip
        assert await resolve(asked.tip) == asked.tip
        await asked.resolver.require_known(asked.source, ASH, asked.tip, admit=_refuse)
        with pytest.raises(TooManyLookups):
            await asked.resolver.require_known(asked.source, ASH, Node("0" * 40), admit=_refuse)

    run(scenario())
    assert asked.source.asked == {"resolve": 2}


def test_a_lookup_goes_on_for_others_if_the_client_that_began_it_is_refused() -> None:
    asked = Asked()
    resolve = partial(asked.resolver.resolve, asked.source, ASH, "default")

    async def scenario() -> list[object]:
        return await asyncio.gather(
            resolve(client="a", admit=_refuse),
            resolve(client="a", admit=_refuse),
            *(resolve(client=client) for client in "bcb"),
            return_exceptions=True,
        )

    *refused, b, c, again = run(scenario())
    assert [type(answer) for answer in refused] == [TooManyLookups] * 2
    assert isinstance(b, Resolution)
    assert {b.node} == {asked.tip}
    assert b == again
    assert isinstance(c, Resolution)
    assert asked.source.asked["resolve"] <= 2


def test_a_client_that_shares_a_lookup_has_its_own_if_that_one_loses_its_place() -> None:
    asked = Asked()
    resolver = Resolver(
        index=asked.index, storage=asked.storage, limits=LookupLimits(in_all=5, per_client=5)
    )

    async def scenario() -> list[object]:
        asking = [
            *(resolver.resolve(asked.source, ASH, rev, client="a") for rev in ("1", "2", "3", "4")),
            resolver.resolve(asked.source, ASH, "default", client="a"),
            resolver.resolve(asked.source, ASH, "5", client="b"),  # takes the place of "default"
            resolver.resolve(asked.source, ASH, "default", client="c"),
        ]
        return await asyncio.gather(*asking, return_exceptions=True)

    *_, lost, _, own = run(scenario())
    assert isinstance(lost, TooManyWaiters)
    assert isinstance(own, Resolution)
    assert own.node == asked.tip


def test_a_refused_lookup_leaves_room_for_others() -> None:
    asked = Asked()
    resolver = Resolver(index=asked.index, storage=asked.storage, limits=LookupLimits(in_all=1))

    async def scenario() -> Node:
        for _ in range(3):
            with pytest.raises(TooManyLookups):
                await resolver.resolve(asked.source, ASH, "default", admit=_refuse)
        return (await resolver.resolve(asked.source, ASH, "default")).node

    assert run(scenario()) == asked.tip


def test_an_unshared_rev_is_cached_in_this_process_only() -> None:
    asked = Asked()

    async def scenario() -> None:
        for rev in ("default", asked.tip[:12]):
            await asked.resolver.resolve(asked.source, ASH, rev, share=False)
            await asked.node(rev)

    run(scenario())
    assert asked.source.asked == {"resolve": 2}
    assert not asked.index.shared


def test_the_first_digits_of_a_node_resolve_if_an_archive_of_it_is_stored() -> None:
    """A git host cannot complete the digits of a node that no ref shows."""
    asked = Asked()
    asked.source.abbreviates = False
    archive = replace(an_archive(), source=asked.source.name, repo=ASH)

    async def scenario() -> None:
        with pytest.raises(UnknownRev):
            await asked.node(archive.node[:8], repo=ASH)
        await store(asked.storage, archive)
        resolver = Resolver(index=asked.index, storage=asked.storage)
        for digits in (7, 13):
            rev = archive.node[:digits].upper()
            assert (await resolver.resolve(asked.source, ASH, rev)).node == archive.node

    run(scenario())


def test_digits_with_which_several_stored_nodes_begin_are_unknown() -> None:
    asked = Asked()
    asked.source.abbreviates = False
    archive = replace(an_archive(), source=asked.source.name, repo=ASH)
    twin = replace(archive, node=Node(archive.node[:-1] + "0123"[int(archive.node[-1] == "0")]))

    async def scenario() -> None:
        for each in (archive, twin):
            await store(asked.storage, each)
        with pytest.raises(UnknownRev):
            await asked.node(archive.node[:10])

    run(scenario())
