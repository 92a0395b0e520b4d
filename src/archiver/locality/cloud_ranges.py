"""The networks that clouds publish, in files that the operator downloads and refreshes."""

import asyncio
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

CHECK_INTERVAL = timedelta(minutes=1)
"""The files change a few times a day, and a check is one question to the file system per file."""

FILE_MAX_BYTES = 64 << 20
"""AWS's file, the larger one, has about 2 MB."""

GLOBAL = frozenset({"GLOBAL", "global"})
"""The clouds' names for networks that belong to none of their regions."""

CloudNetworks: TypeAlias = Iterable[tuple[str, str]]
"""Networks, each with the cloud's name of its region."""

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: it has no error of its own for bytes that are not text or too deeply nested.
"""


class UnreadableRanges(Exception):
    """A file is missing or malformed. The text names the setting."""


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


def parse_aws(body: bytes) -> CloudNetworks:
    """Yield the networks in AWS's ``ip-ranges.json``. Raises one of DECODE_ERRORS.

    https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-syntax.html
    """
    ranges = msgspec.json.decode(body, type=_Aws)
    yield from ((prefix.ip_prefix, prefix.region) for prefix in ranges.prefixes)
    yield from ((prefix.ipv6_prefix, prefix.region) for prefix in ranges.ipv6_prefixes)


def parse_google(body: bytes) -> CloudNetworks:
    """Yield the networks in Google's ``cloud.json``. Raises one of DECODE_ERRORS.

    https://support.google.com/a/answer/10026322
    """
    for prefix in msgspec.json.decode(body, type=_Google).prefixes:
        yield prefix.ipv4_prefix or prefix.ipv6_prefix, prefix.scope


@dataclass(frozen=True, slots=True, kw_only=True)
class RangesFile:
    """A cloud's file. ``homes`` maps the cloud's regions to the nearest of ours."""

    setting: str
    path: Path
    parse: Callable[[bytes], CloudNetworks]
    homes: Mapping[str, Region]

    def read_networks(self) -> list[tuple[str, Region | None]]:
        """Return each network with our nearest region, or None if no region of ours is near.

        Raises UnreadableRanges.
        """
        try:
            with self.path.open("rb") as file:
                body = file.read(FILE_MAX_BYTES + 1)
            if len(body) > FILE_MAX_BYTES:
                raise UnreadableRanges(
                    f"{self.setting}: the file has more than {FILE_MAX_BYTES} bytes"
                )
            # AWS lists a network once for each service that uses it.
            return [
                (network, self.homes.get(region))
                for network, region in dict.fromkeys(self.parse(body))
                if region not in GLOBAL
            ]
        except OSError as exc:
            raise UnreadableRanges(f"{self.setting}: {exc.strerror}") from exc
        except DECODE_ERRORS as exc:
            raise UnreadableRanges(f"{self.setting}: the file is malformed") from exc

    def version(self) -> tuple[int, ...]:
        """Return a value that changes with the file."""
        try:
            stat = self.path.stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


class CloudRanges:
    """The networks in the files, read again when a file changes."""

    def __init__(
        self, *, files: Sequence[RangesFile], check_interval: timedelta = CHECK_INTERVAL
    ) -> None:
        self._files = files
        self._check_interval_s = check_interval.total_seconds()
        self._versions: list[tuple[int, ...]] = []

    def read_networks(self) -> Networks[Region | None]:
        """Return the networks in the files. Raises UnreadableRanges."""
        self._versions = self._current_versions()
        networks = [network for file in self._files for network in file.read_networks()]
        try:
            return Networks(networks)
        except ValueError as exc:
            settings = ", ".join(file.setting for file in self._files)
            raise UnreadableRanges(f"{settings}: an entry is not a network") from exc

    def try_read_networks(self) -> Networks[Region | None] | None:
        """Return the networks in the files. If one cannot be read, log it and return None."""
        try:
            return self.read_networks()
        except UnreadableRanges as exc:
            log.warning("ranges.unreadable", reason=str(exc))
            return None

    async def follow(self, replace: Callable[[Networks[Region | None]], None]) -> None:
        """Call *replace* after each change of the files, until cancelled.

        Malformed files change nothing.
        """
        while self._files:
            await asyncio.sleep(self._check_interval_s)
            networks = await run_in_thread(self._read_if_changed)
            if networks is not None:
                replace(networks)
                log.info("ranges.read", networks=len(networks))

    def _read_if_changed(self) -> Networks[Region | None] | None:
        return self.try_read_networks() if self._current_versions() != self._versions else None

    def _current_versions(self) -> list[tuple[int, ...]]:
        return [file.version() for file in self._files]
