"""A region: a real S3 server, and the proxy before it that injects faults.

Archiver uses the proxy. Presigned URLs lead to the server itself, so the faults of the proxy never
hide whether a link works.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.faults.moments import Moments
from tests.faults.programs import Program, Spells
from tests.parts.process import accepts, free_port
from tests.parts.s3 import (
    ACCESS_KEY,
    SECRET_KEY,
    WEED_CONFIG,
    S3Server,
    accepts_objects,
    weed_command,
)
from tests.parts.s3_fault_proxy import Fault, S3FaultProxy

BUCKET = "archives"


class S3Region:
    """``server`` is the real one, which ``program`` runs."""

    def __init__(self, name: str, folder: Path, spells: Spells) -> None:
        folder.mkdir()
        port = free_port()
        self.name = name
        self.server = S3Server(endpoint=f"http://127.0.0.1:{port}", strict=True)
        (folder / "s3.json").write_text(WEED_CONFIG % (ACCESS_KEY, SECRET_KEY))
        self.program = Program(
            name=f"region {name}",
            command=weed_command(folder, port),
            log=folder / "log",
            ready=lambda: accepts(port) and self._stores(),
            spells=spells,
            patience_s=2.0,  # it waits for idle connections
            env={"GOMEMLIMIT": "400MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        )
        self.proxy: S3FaultProxy | None = None

    def _stores(self) -> bool:
        with contextlib.suppress(OSError):
            return accepts_objects(self.server)
        return False

    def settings(self) -> dict[str, str]:
        assert self.proxy
        return {
            "bucket": BUCKET,
            "endpoint": self.proxy.endpoint,
            "public_endpoint": self.server.endpoint,
            "aws_region": "us-east-1",
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
        }

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with *prefix*, however many."""
        keys: list[str] = []
        query = {"list-type": "2", "prefix": prefix}
        while True:
            status, body = self.server.request("GET", f"/{BUCKET}", query)
            assert status == 200, (status, body[:300])
            page = ET.fromstring(body)  # noqa: S314 - our server
            keys += [key.text or "" for key in page.iterfind("{*}Contents/{*}Key")]
            token = page.findtext("{*}NextContinuationToken")
            if not token:
                return keys
            query = {**query, "continuation-token": token}

    def read(self, key: str) -> bytes | None:
        """Return an object, or None if there is none."""
        status, body = self.server.request("GET", f"/{BUCKET}/{key}")
        assert status in {200, 404}, (status, body[:300])
        return body if status == 200 else None

    def unfinished(self) -> list[str]:
        """Return the keys of the multipart uploads that were neither completed nor aborted."""
        return self.server.unfinished(BUCKET)

    @contextlib.contextmanager
    def misbehaving(self, fault: Fault, applies: Callable[[str, str], bool]) -> Iterator[None]:
        """Inject *fault* into the requests to which it applies, during the block."""
        assert self.proxy
        self.proxy.misbehave = lambda method, target: fault if applies(method, target) else None
        try:
            yield
        finally:
            self.proxy.misbehave = lambda _method, _target: None

    def report_to(self, moments: Moments) -> None:
        """Report the steps of uploads, as they arrive here, as points of a build."""
        assert self.proxy

        def on_request(method: str, target: str, port: int) -> None:
            if point := point_of(method, target):
                moments.reach(point, port)
                moments.reach(f"{point} in {self.name}", port)

        self.proxy.on_request = on_request


def point_of(method: str, target: str) -> str | None:
    """Return which step of a build a request to S3 is."""
    if is_completion(method, target):
        return "completion"
    if method == "PUT" and is_manifest(target):
        return "commit"
    if method in {"PUT", "POST"} and is_archive(target):
        return "upload"
    return None


def is_manifest(target: str) -> bool:
    return target.startswith(f"/{BUCKET}/manifests/")


def is_archive(target: str) -> bool:
    return target.startswith(f"/{BUCKET}/archives/")


def is_completion(method: str, target: str) -> bool:
    """Return whether a request is CompleteMultipartUpload."""
    return method == "POST" and bool(re.search(r"[?&]uploadId=", target))
