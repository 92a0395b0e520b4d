"""Repositories that hgweb cannot pack, and an Archiver with real parts."""

import asyncio
import io
import os
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import pytest

from archiver.errors import IncompleteArchive
from archiver.formats.convert import ProcessConverter
from archiver.formats.verify import StreamVerifier
from archiver.formats.workspace import Workspace
from archiver.limiter import ClientLimits, Limiter
from archiver.model import Archive, Manifest, Node, Region
from archiver.ports.source import ServedFormats
from archiver.runtime.notifications import Notifications
from archiver.service import Archiver
from archiver.sources.config import SourceConfig
from archiver.sources.open import open_source
from archiver.testing import FakeAttempt, MemoryEngine, MemoryIndex, MemoryStorage
from tests.parts.hgweb import Hgweb, Repository

EAST = Region("us-east-1")
ALL = ServedFormats(suffixes=("tar.gz", "tar.bz2", "zip"))
ONLY_ZIP = ServedFormats(suffixes=("zip",), verbatim=False)
DAMAGED = {f"a/f{number}.txt": b"%d\n" % number * 50 for number in range(9)} | {"z/last": b"z"}
LATIN = os.fsdecode(b"caf\xe9.txt")


@dataclass(kw_only=True)
class LocalArchiver:
    """Archiver with real parts between a host and buckets in memory."""

    host: Hgweb
    folder: Path
    storage: MemoryStorage = field(default_factory=MemoryStorage)

    async def build(
        self, archive: Archive, served: ServedFormats, *, trusted: bool = False
    ) -> Manifest:
        async with self._opened(served, trusted=trusted) as archiver:
            copies = await archiver.build(archive, FakeAttempt(archive=archive))
            return copies.manifest

    @asynccontextmanager
    async def _opened(self, served: ServedFormats, *, trusted: bool) -> AsyncIterator[Archiver]:
        notifications, engine = Notifications(), MemoryEngine()
        config = SourceConfig(
            kind="hgweb",
            name="hgmo",
            url_template=self.host.template,
            served=served,
            redirect_hosts=(),
            allow_private_addresses=False,
            lookup_concurrency=2,
            read_timeout=timedelta(seconds=60),
            deadline=timedelta(seconds=120),
            user_agent="Archiver/test",
            trusted=trusted,
        )
        async with open_source(config) as source:
            yield Archiver(
                sources={"hgmo": source},
                storage=self.storage,
                index=MemoryIndex(storage=self.storage, notifications=notifications),
                queue=engine,
                repairs=engine,
                fleet=engine,
                verify=StreamVerifier,
                converter=ProcessConverter(
                    workspace=Workspace(folder=self.folder, max_bytes=1 << 30), threads=1
                ),
                notifications=notifications,
                nearest={},
                limiter=Limiter(limits=ClientLimits(), counters=engine),
            )

    def stored(self, manifest: Manifest) -> bytes:
        return self.storage.objects[EAST][manifest.object_key]


def commit(
    host: Hgweb, files: Mapping[str, bytes], date: str = "1500000000 0"
) -> tuple[Repository, Node]:
    repository = host.create(f"broken/{token_hex(4)}")
    repository.write(files)
    words = ("commit", "--addremove", "--quiet", "--message", "Change", "--date", date)
    repository.hg(*words)
    return repository, Node(repository.tip)


def archive_of(repository: Repository, node: Node, suffix: str, subdir: str = "") -> Archive:
    return Archive(source="hgmo", repo=repository.name, node=node, subdir=subdir, suffix=suffix)


def damage(repository: Repository, path: str) -> None:
    (repository.path / ".hg/store/data" / f"{path}.i").unlink()


def build_damaged(local: LocalArchiver) -> tuple[list[str], IncompleteArchive]:
    """Build the zip of a damaged repository; return the members that were sent, and the error."""
    repository, node = commit(local.host, DAMAGED)
    damage(repository, "a/f5.txt")
    sent = names(local.host.archive(repository.name, node, "zip"))
    with pytest.raises(IncompleteArchive) as raised:
        asyncio.run(local.build(archive_of(repository, node, "zip"), ONLY_ZIP))
    return sent, raised.value


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.namelist()
