"""The three requests of the original service, played against a real one, and verified."""

import asyncio
import hashlib
import tarfile
import time
from pathlib import Path

import aiohttp

from archiver.cli.answers import Accepted, Answer, Located, Progress, understand
from archiver.cli.client import Client
from archiver.cli.demo_repository import REPO, SUBDIR, Repository
from archiver.cli.demo_screen import Screen
from archiver.cli.failures import CommandFailed
from archiver.cli.output import open_output

SOURCE = "hgmo"
SUFFIX = "tar.gz"
REV = "default"
NEAR, FAR = "us-west-2", "us-east-1"

LOOK_EVERY_S = 0.1
WITHIN_S = 60.0
MEMBERS_SHOWN = 6


class Play:
    """Asks, watches and downloads as a client would; ``screen`` remembers what went wrong."""

    def __init__(
        self, *, client: Client, screen: Screen, repository: Repository, node: str, folder: Path
    ) -> None:
        self._client = client
        self._screen = screen
        self._repository = repository
        self._node = node
        self._folder = folder

    async def run(self) -> None:
        """Play it through.

        Raises:
            CommandFailed: It cannot go on.
        """
        async with asyncio.timeout(WITHIN_S):
            accepted = await self._miss()
            await self._watch(accepted)
            near = await self._hit(3, "Ask again: it is there", NEAR)
            await self._download(near)
            far = await self._hit(4, "The same from the other region", FAR)
            self._screen.check("the same bytes in both regions", ok=await self._same(near, far))

    def url(self, region: str | None = None) -> str:
        query = {"subdir": SUBDIR, "preferred_region": region}
        return self._client.archive_url(SOURCE, REPO, REV, query)

    async def _ask(self, number: int, why: str, url: str, headers: tuple[str, ...]) -> Answer:
        self._screen.request(number, why, url)
        began = time.monotonic()
        answer = await self._client.get(url)
        self._screen.answer(answer, headers, time.monotonic() - began)
        return answer

    async def _miss(self) -> Accepted:
        answer = await self._ask(
            1, "Ask for an archive", self.url(NEAR), ("Location", "Retry-After", "Archiver-Node")
        )
        self._screen.check(
            f"{REV} is {self._node[:12]}", ok=answer.headers.get("archiver-node") == self._node
        )
        meaning = understand(answer)
        if not isinstance(meaning, Accepted):
            raise CommandFailed("the first request of a new archive was no miss")
        return meaning

    async def _watch(self, accepted: Accepted) -> None:
        self._screen.request(2, "See how far it is", accepted.status_url)
        began = time.monotonic()
        with self._screen.watching() as watch:
            while True:
                progress = await self._client.progress(accepted.status_url)
                watch.report(progress)
                if progress.ended:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
        progress.check()
        self._tell_end(progress, time.monotonic() - began)

    def _tell_end(self, progress: Progress, duration_s: float) -> None:
        self._screen.regions(progress.links)
        self._screen.check(
            f"a copy in each region after {duration_s:.1f} s", ok=set(progress.links) == {NEAR, FAR}
        )

    async def _hit(self, number: int, why: str, region: str) -> Located:
        headers = ("Location", "Archiver-Region", "Archiver-Size", "Archiver-SHA256")
        meaning = understand(await self._ask(number, why, self.url(region), headers))
        if not isinstance(meaning, Located):
            raise CommandFailed("the archive is not there after its task ended in success")
        self._screen.check(f"redirected to {region}", ok=meaning.region == region)
        return meaning

    async def _download(self, located: Located) -> None:
        path = self._folder / located.file_name
        began = time.monotonic()
        await self._save(located, path)
        duration_s = time.monotonic() - began
        speed = located.size_bytes / 1e6 / duration_s
        self._screen.fact("downloaded", f"{located.size_bytes / 1e6:.1f} MB, {speed:.0f} MB/s")
        self._show_members(path)
        self._screen.check(
            "its sha256 is that of hgweb's own archive",
            ok=located.sha256 == await _sha256(self._repository.archive_url(self._node, SUFFIX)),
        )

    def _show_members(self, path: Path) -> None:
        with tarfile.open(path) as tar:
            names = [member.name for member in tar]
        self._screen.members(names[:MEMBERS_SHOWN], len(names))
        expected = self._repository.files_of(SUBDIR)
        self._screen.check(f"it has all {expected} files of {SUBDIR}", ok=len(names) == expected)

    async def _same(self, one: Located, other: Located) -> bool:
        """Tell whether both regions give the same bytes, and not just say so."""
        await self._save(other, self._folder / "other")
        return one.sha256 == other.sha256

    async def _save(self, located: Located, path: Path) -> None:
        """Download an archive. Raises WrongBytes unless its sha256 is right."""
        with open_output(
            str(path), sha256=located.sha256, size_bytes=located.size_bytes, replace=True
        ) as sink:
            await self._client.download(located, sink, lambda _size_bytes: None)


async def _sha256(url: str) -> str:
    """Return the digest of what hgweb itself sends."""
    digest = hashlib.sha256()
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_chunked(1024 * 1024):
                digest.update(chunk)
    except aiohttp.ClientError as exc:
        raise CommandFailed("hgweb does not give its archive") from exc
    return digest.hexdigest()
