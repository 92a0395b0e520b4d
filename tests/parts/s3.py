"""Two real S3 servers that tests share. Each test uses its own buckets.

SeaweedFS follows S3 nearly everywhere. rclone supports neither create-only writes nor ranges.
"""

import http.client
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest

from archiver.model import Region
from archiver.storage.bucket import Bucket
from archiver.storage.s3_stores import S3Settings
from tests.parts.process import accepts, free_port, running
from tests.parts.sigv4 import sign

ACCESS_KEY = "AKIDTEST"
SECRET_KEY = "secrettest"  # noqa: S105 - only for servers of the tests
REGIONS = (Region("us-east-1"), Region("us-west-2"))


def binary(name: str) -> Path:
    """Return the program in the virtual environment, or else the one on the path."""
    beside = Path(sys.executable).parent / name
    return beside if beside.exists() else Path(shutil.which(name) or name)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running server. ``strict`` is true if it honours ``If-None-Match: *``."""

    endpoint: str
    strict: bool
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY

    def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Send a signed request, and return the status and the body of the response."""
        url = urlsplit(self.endpoint)
        target, headers = sign(
            method,
            host=url.netloc,
            path=path,
            query=query or {},
            body=body,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )
        with closing(http.client.HTTPConnection(url.netloc, timeout=30)) as connection:
            connection.request(method, target, body=body or None, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()

    def make_home(self, regions: Sequence[Region] = REGIONS) -> "Home":
        """Create a new bucket for each of *regions*."""
        home = Home(
            server=self, names={region: f"{region}-{secrets.token_hex(4)}" for region in regions}
        )
        for name in home.names.values():
            self.make_bucket(name)
        return home

    def make_bucket(self, name: str) -> None:
        status, body = self.request("PUT", f"/{name}")
        assert status == 200, body

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of all objects in *bucket* that begin with *prefix*."""
        return self._listed(bucket, {"list-type": "2", "prefix": prefix}, "Contents")

    def unfinished(self, bucket: str) -> list[str]:
        """Return the keys of all multipart uploads that were neither completed nor aborted."""
        return self._listed(bucket, {"uploads": ""}, "Upload")

    def _listed(self, bucket: str, query: Mapping[str, str], element: str) -> list[str]:
        status, body = self.request("GET", f"/{bucket}", query)
        if status == 404 and b"NoSuchUpload" in body:  # rclone, before the first upload
            return []
        assert status == 200, body
        found = ET.fromstring(body).iterfind(f"{{*}}{element}/{{*}}Key")  # noqa: S314 - our server
        return [key.text or "" for key in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The buckets of one test on a server: ``names`` has one per region."""

    server: S3Server
    names: Mapping[Region, str]

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(self.names)

    def bucket(
        self,
        region: Region,
        *,
        endpoint: str | None = None,
        presigned_ttl: timedelta = timedelta(minutes=5),
        public_endpoint: str | None = None,
    ) -> Bucket:
        """Return a region's bucket, at *endpoint* if a proxy is in front of the server."""
        return Bucket(
            S3Settings(
                bucket=self.names[region],
                endpoint=endpoint or self.server.endpoint,
                region="us-east-1",
                access_key_id=self.server.access_key,
                secret_access_key=self.server.secret_key,
            ),
            region=region,
            presigned_ttl=presigned_ttl,
            public_endpoint=public_endpoint,
        )

    def buckets(self) -> list[Bucket]:
        return [self.bucket(region) for region in self.names]

    def keys(self, prefix: str = "") -> dict[Region, list[str]]:
        """Return, for each region, the keys of all objects that begin with *prefix*."""
        return {region: self.server.keys(name, prefix) for region, name in self.names.items()}

    def read(self, region: Region, key: str) -> bytes:
        status, body = self.server.request("GET", f"/{self.names[region]}/{key}")
        assert status == 200, body
        return body

    def clear(self) -> None:
        for region, keys in self.keys().items():
            for key in keys:
                self.server.request("DELETE", f"/{self.names[region]}/{key}")

    def unfinished(self) -> dict[Region, list[str]]:
        """Return the keys of all unfinished multipart uploads in each region."""
        return {region: self.server.unfinished(name) for region, name in self.names.items()}


def weed_command(folder: Path, port: int) -> list[str]:
    """Return a command that starts SeaweedFS quickly, without telemetry and close to S3."""
    return [
        str(binary("weed")),
        "-logtostderr=true",
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={free_port()}",
        "-master.telemetry=false",
        "-master.peers=none",  # no election, which takes 1 to 6 seconds
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={free_port()}",
        "-volume.max=0",
        "-volume.preStopSeconds=0",
        f"-filer.port={free_port()}",
        "-s3",
        f"-s3.port={port}",
        f"-s3.config={folder / 's3.json'}",
        "-s3.autoCreateBucket=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


WEED_CONFIG = """{"identities": [{"name": "test", "actions": ["Admin"],
    "credentials": [{"accessKey": "%s", "secretKey": "%s"}]}]}"""


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@contextmanager
def running_weed(folder: Path) -> Iterator[S3Server]:
    """Yield a SeaweedFS with its data in *folder*."""
    port = free_port()
    server = S3Server(endpoint=f"http://127.0.0.1:{port}", strict=True)
    (folder / "s3.json").write_text(WEED_CONFIG % (ACCESS_KEY, SECRET_KEY))
    with running(
        weed_command(folder, port),
        log=folder / "log",
        ready=lambda: accepts(port) and accepts_objects(server),
        env={"GOMEMLIMIT": "400MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        stop_timeout_s=0.1,
    ):
        yield server


def accepts_objects(server: S3Server) -> bool:
    """Return whether a volume is ready. Volumes start last."""
    server.request("PUT", "/ready")
    return server.request("PUT", "/ready/object", body=b"x")[0] == 200


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("rclone")
    port = free_port()
    command = [str(binary("rclone")), "serve", "s3", "--config", "/dev/null"]
    command += ["--addr", f"127.0.0.1:{port}", "--etag-hash", "", "--dir-cache-time", "9999h"]
    (folder / "buckets").mkdir()
    with running(
        [*command, str(folder / "buckets")],
        log=folder / "log",
        ready=lambda: accepts(port),
        env={"RCLONE_AUTH_KEY": f'"{ACCESS_KEY},{SECRET_KEY}"'},  # CSV: one pair, quoted
    ):
        yield S3Server(endpoint=f"http://127.0.0.1:{port}", strict=False)


@pytest.fixture(scope="session")
def empty_homes() -> list[Home]:
    """Empty homes for reuse, because the first object in a new bucket is slow in SeaweedFS."""
    return []


@pytest.fixture
def home(weed: S3Server, empty_homes: list[Home]) -> Iterator[Home]:
    """Empty buckets in two regions, on SeaweedFS."""
    home = empty_homes.pop() if empty_homes else weed.make_home()
    yield home
    home.clear()
    if not any(home.unfinished().values()):
        empty_homes.append(home)
