"""Pins: small objects beside the manifests, so that they survive the loss of the engine."""

from collections.abc import Mapping
from contextlib import aclosing, suppress
from datetime import UTC, datetime

import msgspec

from archiver.errors import StorageUnavailable
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
        archives: set[Archive] = set()

        async def collect(bucket: Bucket) -> None:
            async with aclosing(bucket.iter_objects(PINS)) as objects:
                async for key, _ in objects:
                    if archive := parse_pin_key(key):
                        archives.add(archive)

        answers = await self._buckets.query_all(self._buckets.regions, collect)
        return Listing(archives=frozenset(archives), failures=failures_of(answers))

    async def read_pin(self, archive: Archive) -> Pin | None:
        answers = await self._buckets.query_all(
            self._buckets.regions, lambda bucket: bucket.read_small(pin_key(archive), A_PIN)
        )
        failures = failures_of(answers)
        bodies = [body for body in answers.values() if isinstance(body, bytes)]
        if failures and len(failures) == len(answers):
            raise next(iter(failures.values()))
        return _parse_pin(bodies[0]) if bodies else None


def _parse_pin(body: bytes) -> Pin:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pin = msgspec.json.decode(body, type=Pin)
        if pin.created_at.tzinfo and pin.principal.isprintable() and pin.reason.isprintable():
            return pin
    return Pin(principal="", reason="", created_at=datetime.fromtimestamp(0, UTC))
