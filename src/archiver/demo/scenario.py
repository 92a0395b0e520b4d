"""The three requests of the original service, sent to a running Archiver and checked."""

import asyncio
import hashlib
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from archiver.client.api_client import ApiClient
from archiver.client.api_response import Accepted, ApiResponse, Located, parse_archive_response
from archiver.client.deadline import Deadline
from archiver.client.download import download_object
from archiver.client.failures import CommandFailed
from archiver.client.output import open_output
from archiver.client.text import without_query
from archiver.demo.repository import REPO, SUBDIR, DemoRepository
from archiver.demo.screen import Screen

SOURCE = "hgmo"
SUFFIX = "tar.gz"
REV = "default"
NEAR, FAR = "us-west-2", "us-east-1"

POLL_S = 0.1
MEMBERS_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Sends requests, polls and downloads as a client would. ``screen`` records failed checks."""

    client: ApiClient
    screen: Screen
    repository: DemoRepository
    node: str
    folder: Path
    deadline: Deadline

    async def play(self) -> None:
        """Play every step. Raises CommandFailed if a step makes the next one impossible."""
        accepted = await self._request_miss()
        await self._watch_task(accepted)
        near = await self._request_hit(3, "Request it again: it exists", NEAR)
        await self._download(near)
        far = await self._request_hit(4, "The same from the other region", FAR)
        await asyncio.to_thread(self._save, far, self.folder / "second")
        self.screen.check("the same bytes in both regions", ok=near.sha256 == far.sha256)

    def archive_url(self, region: str | None = None) -> str:
        query = {"subdir": SUBDIR, "preferred_region": region}
        return self.client.archive_url(SOURCE, REPO, REV, query)

    async def _request(
        self, number: int, title: str, url: str, headers: tuple[str, ...]
    ) -> ApiResponse:
        self.screen.request(number, title, url)
        began = time.monotonic()
        response = await asyncio.to_thread(self.client.get, url, self.deadline)
        self.screen.response(response, headers, time.monotonic() - began)
        return response

    async def _request_miss(self) -> Accepted:
        headers = ("Location", "Retry-After", "Archiver-Node")
        response = await self._request(1, "Request an archive", self.archive_url(NEAR), headers)
        self.screen.check(
            f"{REV} is {self.node[:12]}", ok=response.headers.get("archiver-node") == self.node
        )
        location = parse_archive_response(response)
        if not isinstance(location, Accepted):
            raise CommandFailed("the first request for a new archive was a hit")
        return location

    async def _watch_task(self, accepted: Accepted) -> None:
        self.screen.request(2, "Poll the status", accepted.status_url)
        began = time.monotonic()
        with self.screen.task_display() as show:
            while True:
                status = await asyncio.to_thread(
                    self.client.fetch_status, accepted.status_url, self.deadline
                )
                show(status)
                if status.ended:
                    break
                await asyncio.sleep(POLL_S)
        status.raise_if_failed()
        duration_s = time.monotonic() - began
        for region, presigned_url in status.presigned_urls.items():
            self.screen.fact(region, without_query(presigned_url))
        self.screen.check(
            f"a copy in each region after {duration_s:.1f} s",
            ok=set(status.presigned_urls) == {NEAR, FAR},
        )

    async def _request_hit(self, number: int, title: str, region: str) -> Located:
        headers = ("Location", "Archiver-Region", "Archiver-Size", "Archiver-SHA256")
        response = await self._request(number, title, self.archive_url(region), headers)
        location = parse_archive_response(response)
        if not isinstance(location, Located):
            raise CommandFailed("the archive does not exist although its task succeeded")
        self.screen.check(f"redirected to {region}", ok=location.region == region)
        return location

    async def _download(self, located: Located) -> None:
        path = self.folder / located.file_name
        began = time.monotonic()
        await asyncio.to_thread(self._save, located, path)
        duration_s = time.monotonic() - began
        speed = located.size_bytes / 1e6 / duration_s
        self.screen.fact("downloaded", f"{located.size_bytes / 1e6:.1f} MB, {speed:.0f} MB/s")
        self._show_members(path)
        self.screen.check(
            "its sha256 is that of hgweb's own archive",
            ok=located.sha256 == await _sha256(self.repository.archive_url(self.node, SUFFIX)),
        )

    def _show_members(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            names = [member.name for member in tar]
        self.screen.members(names[:MEMBERS_SHOWN], len(names))
        expected = self.repository.count_files(SUBDIR)
        self.screen.check(f"it has all {expected} files of {SUBDIR}", ok=len(names) == expected)

    def _save(self, located: Located, path: Path) -> None:
        """Download an archive. Raises WrongBytes if its sha256 is wrong."""
        with open_output(
            str(path), sha256=located.sha256, size_bytes=located.size_bytes, replace=True
        ) as writer:
            download_object(
                self.client.transport, located, writer, lambda _size_bytes: None, self.deadline
            )


async def _sha256(url: str) -> str:
    sha256 = hashlib.sha256()
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_chunked(1024 * 1024):
                sha256.update(chunk)
    except aiohttp.ClientError as exc:
        raise CommandFailed("hgweb does not send its archive") from exc
    return sha256.hexdigest()
