"""The files in which clouds publish their networks."""

import asyncio
import json
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from archiver.locality.cloud_ranges import (
    CloudRanges,
    RangesFile,
    UnreadableRanges,
    parse_aws,
    parse_google,
)
from archiver.locality.networks import Networks, parse_address
from archiver.model import Region
from archiver.web.client_address import ClientResolver

EAST, WEST = Region("east"), Region("west")

AWS = {
    "syncToken": "1",
    "createDate": "2026-11-26-00-00-00",
    "prefixes": [
        {"ip_prefix": prefix, "region": region, "service": service, "network_border_group": region}
        for prefix, region, service in (
            ("3.0.0.0/15", "us-east-1", "AMAZON"),
            ("3.0.0.0/15", "us-east-1", "EC2"),
            ("3.1.0.0/16", "eu-west-3", "EC2"),
            ("3.1.2.0/24", "us-west-2", "EC2"),
            ("3.0.9.0/24", "GLOBAL", "AMAZON"),
        )
    ],
    "ipv6_prefixes": [
        {"ipv6_prefix": "2600:1f14::/35", "region": "us-west-2", "service": "EC2"},
    ],
}

GOOGLE = {
    "syncToken": "1",
    "creationTime": "2026-11-26T00:00:00",
    "prefixes": [
        {"ipv4Prefix": "34.1.208.0/20", "service": "Google Cloud", "scope": "us-east4"},
        {"ipv6Prefix": "2600:1900:8000::/44", "service": "Google Cloud", "scope": "us-west1"},
        {"ipv4Prefix": "34.2.0.0/16", "service": "Google Cloud", "scope": "global"},
    ],
}
HOMES = {"us-east-1": EAST, "us-west-2": WEST, "us-east4": EAST, "us-west1": WEST}


def write(path: Path, text: str) -> None:
    """Replace the file atomically, as operators should."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def aws(path: Path, body: object = AWS) -> RangesFile:
    write(path, json.dumps(body))
    return RangesFile(setting="server.aws_ranges", path=path, parse=parse_aws, homes=HOMES)


def google(path: Path, body: object = GOOGLE) -> RangesFile:
    write(path, json.dumps(body))
    return RangesFile(setting="server.google_ranges", path=path, parse=parse_google, homes=HOMES)


def region(networks: Networks[Region | None], text: str) -> Region | None:
    address = parse_address(text)
    assert address
    return networks.get(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    (
        ("3.0.1.1", EAST),
        ("3.1.1.1", None),  # in a region without a bucket, inside a network of another region
        ("3.1.2.1", WEST),
        ("3.0.9.1", EAST),  # the global network is ignored
        ("2600:1f14::1", WEST),
        ("34.1.208.1", EAST),
        ("2600:1900:8000::1", WEST),
        ("34.2.0.1", None),
        ("192.0.2.1", None),
    ),
)
def test_an_address_has_the_region_that_its_cloud_publishes(
    tmp_path: Path, address: str, expected: Region | None
) -> None:
    ranges = CloudRanges(files=[aws(tmp_path / "aws"), google(tmp_path / "google")])
    assert region(ranges.read_networks(), address) == expected


@pytest.mark.parametrize(
    ("make", "setting"),
    (
        (lambda path: aws(path, GOOGLE), "server.aws_ranges"),
        (lambda path: google(path, AWS), "server.google_ranges"),
        (lambda path: aws(path, [1]), "server.aws_ranges"),
        (lambda path: aws(path, {}), "server.aws_ranges"),
        (
            lambda path: aws(path, {"prefixes": [{"ip_prefix": "1.2.3.4/8", "region": "x"}]}),
            "server.aws_ranges",
        ),
        (lambda path: google(path, {"prefixes": [{"scope": "x"}]}), "server.google_ranges"),
    ),
)
def test_a_file_of_another_format_is_refused_with_its_setting(
    tmp_path: Path, make: Callable[[Path], RangesFile], setting: str
) -> None:
    with pytest.raises(UnreadableRanges, match=setting.replace(".", r"\.")):
        CloudRanges(files=[make(tmp_path / "ranges.json")]).read_networks()


@pytest.mark.parametrize(
    "body",
    (
        b'{"prefixes": [{"ip_prefix": "\xff", "region": "us-east-1"}]}',
        b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b', "prefixes": []}',
    ),
    ids=("no text", "deep"),
)
def test_a_malformed_file_is_refused_with_its_setting(tmp_path: Path, body: bytes) -> None:
    file = aws(tmp_path / "aws")
    file.path.write_bytes(body)
    with pytest.raises(UnreadableRanges, match=r"server\.aws_ranges"):
        CloudRanges(files=[file]).read_networks()


def test_a_missing_file_is_refused_with_its_setting(tmp_path: Path) -> None:
    file = aws(tmp_path / "aws")
    file.path.unlink()
    with pytest.raises(UnreadableRanges, match=r"server\.aws_ranges: No such file"):
        CloudRanges(files=[file]).read_networks()


def test_a_malformed_file_does_not_keep_a_process_from_serving(tmp_path: Path) -> None:
    file = aws(tmp_path / "aws", [])
    with capture_logs() as lines:
        clients = ClientResolver(published=CloudRanges(files=[file]).try_read_networks())
    assert clients.resolve({"client": ("3.0.1.1", 1), "headers": []}).region is None
    assert [line["event"] for line in lines] == ["ranges.unreadable"]


def test_without_files_there_are_no_networks() -> None:
    assert len(CloudRanges(files=[]).read_networks()) == 0
    asyncio.run(CloudRanges(files=[]).follow(ClientResolver().replace_published))


def test_a_changed_file_is_read_again_and_a_malformed_one_changes_nothing(tmp_path: Path) -> None:
    file = aws(tmp_path / "aws")
    ranges = CloudRanges(files=[file], check_interval=timedelta(milliseconds=10))
    clients = ClientResolver(published=ranges.read_networks())
    request = {"client": ("3.0.1.1", 1), "headers": []}

    async def until(event: str, lines: list[MutableMapping[str, Any]]) -> None:
        async with asyncio.timeout(10):
            while [line["event"] for line in lines] != [event]:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert [line["event"] for line in lines] == [event]
        lines.clear()

    async def play() -> None:
        with capture_logs() as lines:
            following = asyncio.ensure_future(ranges.follow(clients.replace_published))
            assert clients.resolve(request).region == EAST
            write(file.path, "{")
            await until("ranges.unreadable", lines)
            assert clients.resolve(request).region == EAST
            file.path.unlink()
            await until("ranges.unreadable", lines)
            aws(file.path, {"prefixes": [{"ip_prefix": "3.0.0.0/15", "region": "us-west-2"}]})
            await until("ranges.read", lines)
            assert clients.resolve(request).region == WEST
            aws(file.path, {"prefixes": []})
            await until("ranges.read", lines)
            assert clients.resolve(request).region is None
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    asyncio.run(play())
