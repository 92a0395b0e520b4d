"""The networks that clouds publish, in files that somebody else fetches, and which may change."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import msgspec

from archiver.locality.networks import Networks
from archiver.model import Region
from archiver.runtime.threads import run_in_thread
from archiver.telemetry import log
from archiver.web.clients import Clients

LOOK_EVERY = timedelta(minutes=1)
"""The files change some times a day, and a look at them is a question to the file system."""

FILE_MAX_BYTES = 64 << 20
"""AWS's, the larger one, has some 2 MB."""

EVERYWHERE = frozenset({"GLOBAL", "global"})
"""What clouds call networks that are in none of their regions."""

Networked: TypeAlias = Iterable[tuple[str, str]]
"""Networks, and the cloud's own name of the region in which each is."""


BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises; msgspec has no name of its own for what is no text, or nested too deep."""


class Unreadable(Exception):
    """A file is not there, or not what it should be. The text names the setting."""


class _AwsV4(msgspec.Struct):
    ip_prefix: str
    region: str


class _AwsV6(msgspec.Struct):
    ipv6_prefix: str
    region: str


class _Aws(msgspec.Struct):
    prefixes: tuple[_AwsV4, ...]
    ipv6_prefixes: tuple[_AwsV6, ...] = ()


class _GooglePrefix(msgspec.Struct, rename="camel"):
    scope: str
    ipv4_prefix: str = ""
    ipv6_prefix: str = ""


class _Google(msgspec.Struct):
    prefixes: tuple[_GooglePrefix, ...]


def read_aws(body: bytes) -> Networked:
    """Return what is in AWS's ``ip-ranges.json``. Raises what is in BROKEN.

    https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-syntax.html
    """
    found = msgspec.json.decode(body, type=_Aws)
    yield from ((prefix.ip_prefix, prefix.region) for prefix in found.prefixes)
    yield from ((prefix.ipv6_prefix, prefix.region) for prefix in found.ipv6_prefixes)


def read_google(body: bytes) -> Networked:
    """Return what is in Google's ``cloud.json``. Raises what is in BROKEN.

    https://support.google.com/a/answer/10026322
    """
    for prefix in msgspec.json.decode(body, type=_Google).prefixes:
        yield prefix.ipv4_prefix or prefix.ipv6_prefix, prefix.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesFile:
    """A file that a cloud publishes, and which of our regions is near each of the cloud's."""

    setting: str
    path: Path
    read: Callable[[bytes], Networked]
    homes: Mapping[str, Region]

    def networks(self) -> list[tuple[str, Region | None]]:
        """Return each network with our region, or None if none of ours is near it.

        Raises:
            Unreadable: The file cannot be read, or is another one.
        """
        try:
            with self.path.open("rb") as file:
                body = file.read(FILE_MAX_BYTES + 1)
            if len(body) > FILE_MAX_BYTES:
                raise Unreadable(f"{self.setting}: the file has more than {FILE_MAX_BYTES} bytes")
            # Each is there once for every service that uses it.
            return [
                (network, self.homes.get(region))
                for network, region in dict.fromkeys(self.read(body))
                if region not in EVERYWHERE
            ]
        except OSError as exc:
            raise Unreadable(f"{self.setting}: {exc.strerror}") from exc
        except BROKEN as exc:
            raise Unreadable(f"{self.setting}: is not the file that it should be") from exc

    def stamp(self) -> tuple[int, ...]:
        """Return what changes when the file does."""
        try:
            now = self.path.stat()
        except OSError:
            return ()
        return now.st_mtime_ns, now.st_size, now.st_ino


class Ranges:
    """The files, as they were when they were last read."""

    def __init__(self, *, files: Sequence[RangesFile], look_every: timedelta = LOOK_EVERY) -> None:
        self._files = files
        self._look_every_s = look_every.total_seconds()
        self._stamps: list[tuple[int, ...]] = []

    def read(self) -> Networks[Region | None]:
        """Return what the files hold now. Raises Unreadable."""
        self._stamps = self._now()
        networks = [file.networks() for file in self._files]
        try:
            return Networks(itertools.chain(*networks))
        except ValueError as exc:
            settings = ", ".join(file.setting for file in self._files)
            raise Unreadable(f"{settings}: has something that is no network") from exc

    def try_read(self) -> Networks[Region | None] | None:
        """Return what the files hold now; None, and a line in the log, if one cannot be read."""
        try:
            return self.read()
        except Unreadable as exc:
            log.warning("ranges.unreadable", reason=str(exc))
            return None

    async def follow(self, clients: Clients) -> None:
        """Tell *clients* whenever a file changes, until cancelled. A bad one changes nothing."""
        while self._files:
            await asyncio.sleep(self._look_every_s)
            networks = await run_in_thread(self._read_if_changed)
            if networks is not None:
                clients.publish(networks)
                log.info("ranges.read", networks=len(networks))

    def _read_if_changed(self) -> Networks[Region | None] | None:
        return self.try_read() if self._now() != self._stamps else None

    def _now(self) -> list[tuple[int, ...]]:
        return [file.stamp() for file in self._files]
