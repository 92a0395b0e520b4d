"""The contract of ``ports.Storage`` for pins."""

from datetime import UTC, datetime

import pytest

from archiver.errors import StorageUnavailable
from archiver.model import Pin
from archiver.ports.storage import Storage
from tests.contracts.storage_backends import (
    EAST,
    ODD_NAMES,
    WEST,
    Backend,
    InMemory,
    InRclone,
    InSeaweedFS,
    an_archive,
    store,
    use,
)
from tests.parts.s3 import REGIONS

PIN = Pin(principal="token:ops", reason="a release, über", created_at=datetime.now(UTC))


class PinContract:
    @pytest.mark.parametrize("repo", ("projects/ash", *ODD_NAMES))
    def test_a_pin_is_found_until_it_is_removed(self, backend: Backend, repo: str) -> None:
        archive = an_archive(repo=repo)

        async def scenario(storage: Storage) -> None:
            assert await storage.read_pin(archive) is None
            assert await storage.put_pin(archive, PIN) == {}
            assert await storage.read_pin(archive) == PIN
            assert archive in (await storage.list_pinned()).archives
            assert await storage.remove_pin(archive) == {}
            assert await storage.remove_pin(archive) == {}
            assert await storage.read_pin(archive) is None
            assert archive not in (await storage.list_pinned()).archives

        use(backend, scenario)

    def test_the_first_pin_stays(self, backend: Backend) -> None:
        archive = an_archive()
        later = Pin(principal="cli", reason="another", created_at=datetime.now(UTC))

        async def scenario(storage: Storage) -> None:
            await storage.put_pin(archive, PIN)
            assert await storage.put_pin(archive, later) == {}
            assert await storage.read_pin(archive) == PIN

        use(backend, scenario)

    def test_a_pin_in_one_region_counts_and_silent_regions_are_named(
        self, backend: Backend
    ) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(WEST)
            assert set(await storage.put_pin(archive, PIN)) == {WEST}
            backend.bring_up()
            assert await storage.read_pin(archive) == PIN
            assert archive in (await storage.list_pinned()).archives
            backend.take_down(EAST)
            listing = await storage.list_pinned()
            assert (archive in listing.archives, set(listing.failures)) == (False, {EAST})
            assert set(await storage.remove_pin(archive)) == {EAST}
            backend.take_down(*REGIONS)
            with pytest.raises(StorageUnavailable):
                await storage.read_pin(archive)

        use(backend, scenario)

    def test_whether_an_archive_is_pinned_may_be_uncertain(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(EAST)
            assert await storage.read_pin(archive) is None
            with pytest.raises(StorageUnavailable):
                await storage.read_pin(archive, certain=True)
            backend.bring_up()
            assert await storage.read_pin(archive, certain=True) is None
            assert await storage.put_pin(archive, PIN) == {}
            backend.take_down(EAST)
            assert await storage.read_pin(archive, certain=True) == PIN

        use(backend, scenario)

    def test_pins_are_spread_to_regions_that_lack_them(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            backend.take_down(WEST)
            await storage.put_pin(archive, PIN)
            with pytest.raises(StorageUnavailable):
                await storage.spread_pins()
            backend.bring_up()
            assert await storage.spread_pins() >= 1
            backend.take_down(EAST)
            assert await storage.read_pin(archive) == PIN
            backend.bring_up()
            assert await storage.spread_pins() == 0

        use(backend, scenario)

    def test_the_traces_of_an_archive_have_its_pin(self, backend: Backend) -> None:
        archive = an_archive()

        async def scenario(storage: Storage) -> None:
            await store(storage, archive)
            assert (await storage.traces(archive)).pin is None
            await storage.put_pin(archive, PIN)
            assert (await storage.traces(archive)).pin == PIN

        use(backend, scenario)


class TestMemoryStorage(InMemory, PinContract):
    pass


class TestSeaweedFS(InSeaweedFS, PinContract):
    pass


@pytest.mark.thorough
class TestRclone(InRclone, PinContract):
    pass
