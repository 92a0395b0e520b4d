"""One S3 server per region, on loopback: ``rclone serve s3``, plain files in a folder."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from archiver.embedded import binaries
from archiver.embedded.child import Part
from archiver.embedded.folder import LOOPBACK, DataFolder
from archiver.embedded.probe import http

ACCESS_KEY_ID = "archiver"

FORGET_AFTER = "5s"
"""How long rclone believes that a folder is as it saw it last: files removed by hand are then
gone for its clients as well, where it would first announce them and then break off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A region and the name of its bucket."""

    region: str
    bucket: str


PLACES = (
    Place(region="us-east-1", bucket="archiver-us-east-1"),
    Place(region="us-west-2", bucket="archiver-us-west-2"),
)


def rclone(folder: DataFolder) -> tuple[list[Part], Mapping[str, str]]:
    """Return a server per region, and the environment that leads Archiver to them.

    Raises:
        CannotServe: rclone is not installed.
    """
    ports = {place: folder.port(f"s3-{place.region}") for place in PLACES}
    secret = folder.secret("s3_secret_access_key")
    regions = {
        place.region: {
            "bucket": place.bucket,
            "endpoint": f"http://{LOOPBACK}:{port}",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": secret,
        }
        for place, port in ports.items()
    }
    parts = [_server(folder, place, port, secret) for place, port in ports.items()]
    return parts, {"ARCHIVER_REGIONS": json.dumps(regions), "NO_PROXY": no_proxy()}


def no_proxy() -> str:
    """Return the hosts that no proxy is asked for: those that were none before, and ours."""
    before = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    return f"{before},{LOOPBACK}" if before else LOOPBACK


def _server(folder: DataFolder, place: Place, port: int, secret: str) -> Part:
    root = folder.path / "s3" / place.region
    bucket = root / place.bucket

    def prepare() -> None:
        bucket.mkdir(mode=0o700, parents=True, exist_ok=True)

    return Part(
        name=f"s3-{place.region}",
        command=(
            str(binaries.find("rclone")),
            *("serve", "s3", "--config", os.devnull),
            *("--addr", f"{LOOPBACK}:{port}"),
            *("--etag-hash", ""),  # else it reads a file through to answer HEAD
            "--no-checksum",  # else it digests a file while it answers GET
            *("--dir-cache-time", FORGET_AFTER),
            str(root),
        ),
        # CSV, hence the quotes; and in the environment, because arguments are everyone's to read.
        env={"RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{secret}"'},
        prepare=prepare,
        ready=http(LOOPBACK, port, "/", expect=b"HTTP/1.1 "),
        folder=bucket,
        log=folder.log(f"s3-{place.region}"),
    )
