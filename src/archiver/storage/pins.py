"""Pins: small objects beside the manifests, so that they survive the loss of the engine."""

from collections.abc import Collection, Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime

import msgspec

from archiver.errors import ArchiverError, StorageUnavailable
from archiver.model import Archive, Pin, Region
from archiver.ports.storage import Listing
from archiver.storage.bucket import Bucket
from archiver.storage.object_keys import PINS, parse_pin_key, pin_key
from archiver.storage.region_buckets import RegionBuckets, failures_of

A_PIN = "a pin"


class BucketPins:
    """Implements the parts of ``ports.Storage`` that pin archives. Waits for all regions."""

    def __init__(self, *, buckets: RegionBuckets) -> None:
        self._buckets = buckets

    async def put_pin(self, archive: Archive, pin: Pin) -> Mapping[Region, StorageUnavailable]:
        key, body = pin_key(archive), msgspec.json.format(msgspec.json.encode(pin), indent=2)
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.create_small(key, body, A_PIN)
        )
        return failures_of(answers)

    async def remove_pin(self, archive: Archive) -> Mapping[Region, StorageUnavailable]:
        key = pin_key(archive)
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.delete_object(key)
        )
        return failures_of(answers)

    async def list_pinned(self) -> Listing:
        answers = await self._list()
        listed = [each for each in answers.values() if isinstance(each, frozenset)]
        return Listing(archives=frozenset().union(*listed), failures=failures_of(answers))

    async def spread_pins(self) -> int:
        answers = await self._list()
        if failures := failures_of(answers):
            raise StorageUnavailable(f"these did not list their pins: {', '.join(failures)}")
        listed = {r: each for r, each in answers.items() if isinstance(each, frozenset)}
        written = 0
        for archive in frozenset().union(*listed.values()):
            having = [region for region in listed if archive in listed[region]]
            if lacking := [region for region in listed if archive not in listed[region]]:
                written += await self._spread(archive, having[0], lacking)
        return written

    async def _spread(self, archive: Archive, source: Region, lacking: Collection[Region]) -> bool:
        """Copy a pin to the regions that lack it, unless it is removed meanwhile."""
        key = pin_key(archive)

        async def read(bucket: Bucket) -> bytes | None:
            return await bucket.read_small(key, A_PIN)

        body = (await self._buckets.query_all([source], read))[source]
        if not isinstance(body, bytes):
            return False
        await self._buckets.query_all(lacking, lambda bucket: bucket.create_small(key, body, A_PIN))
        if (await self._buckets.query_all([source], read))[source] is None:
            await self._buckets.query_all(lacking, lambda bucket: bucket.delete_object(key))
            return False
        return True

    async def _list(self) -> Mapping[Region, frozenset[Archive] | ArchiverError]:
        async def collect(bucket: Bucket) -> frozenset[Archive]:
            async with aclosing(bucket.iter_objects(PINS)) as objects:
                return frozenset(
                    [archive async for key, _ in objects if (archive := parse_pin_key(key))]
                )

        return await self._buckets.query_all(self._buckets.regions, collect)

    async def read_pin(self, archive: Archive, *, certain: bool = False) -> Pin | None:
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.read_small(pin_key(archive), A_PIN)
        )
        failures = failures_of(answers)
        bodies = [body for body in answers.values() if isinstance(body, bytes)]
        if failures and not bodies and (certain or len(failures) == len(answers)):
            raise next(iter(failures.values()))
        return _parse_pin(bodies[0]) if bodies else None


def _parse_pin(body: bytes) -> Pin:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pin = msgspec.json.decode(body, type=Pin)
        if pin.created_at.tzinfo and pin.principal.isprintable() and pin.reason.isprintable():
            return pin
    return Pin(principal="", reason="", created_at=datetime.fromtimestamp(0, UTC))
