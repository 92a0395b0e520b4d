"""The source's identity check reaches the verifier of every stream."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import replace

import pytest

from archiver.building.pipeline import Output, Pipeline
from archiver.building.streams import Progress
from archiver.errors import WrongNode
from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Node
from archiver.ports.source import ServedFormats
from archiver.sources.hgweb.source import HgArchivalCheck
from archiver.testing import FakeAttempt, FakeConverter, FakeSource
from tests.memory_world import World

OTHER = HgArchivalCheck(Node(World().archive().node[::-1]))


def a_world() -> World:
    return World(source=FakeSource(served=ServedFormats(suffixes=("zip",), verbatim=False)))


async def read(output: Output) -> None:
    async with aclosing(output.stream.chunks()) as chunks:
        async for _ in chunks:
            pass


async def fetch(world: World, archive: Archive) -> None:
    pipeline = Pipeline(verify=StreamVerifier, converter=FakeConverter())
    candidate = replace(archive, suffix="zip")
    progress = Progress(FakeAttempt(archive=archive).report)
    async with pipeline.fetch(world.source, candidate, archive, progress) as output:
        await read(output)


async def convert_stored(world: World, archive: Archive) -> None:
    """Convert a copy whose completeness was not proven when it was stored."""
    world.source.trusted = True
    relative = replace(archive, suffix="zip")
    copies = await world.archiver.build(relative, FakeAttempt(archive=relative))
    world.source.trusted = False
    pipeline = Pipeline(verify=StreamVerifier, converter=FakeConverter())
    chunks = world.storage.read_copy(copies, copies.regions[0])
    progress = Progress(FakeAttempt(archive=archive).report)
    async with pipeline.convert_copy(
        world.source, relative, archive, copies.manifest, chunks, progress
    ) as output:
        await read(output)


Scenario = Callable[[World, Archive], Coroutine[None, None, None]]


@pytest.mark.parametrize("scenario", (fetch, convert_stored))
@pytest.mark.parametrize("checked", ("zip", "tar"))
def test_an_archive_of_another_node_is_refused(scenario: Scenario, checked: str) -> None:
    world = a_world()
    archive = world.archive(suffix="tar")
    asyncio.run(scenario(world, archive))

    world.source.identities[replace(archive, suffix=checked)] = OTHER
    with pytest.raises(WrongNode):
        asyncio.run(scenario(world, archive))
