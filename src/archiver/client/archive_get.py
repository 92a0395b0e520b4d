"""Gets an archive: locate it, wait for it, download it, verify it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from archiver.client.api_client import ApiClient
from archiver.client.api_response import Located
from archiver.client.archive_wait import ArchiveWait
from archiver.client.cache import Cache
from archiver.client.deadline import Deadline
from archiver.client.download import ResumableDownload
from archiver.client.events import Events
from archiver.client.failures import (
    BeingWritten,
    CommandFailed,
    LimitReached,
    RetryLater,
    Unfinished,
    WrongBytes,
)
from archiver.client.output import is_complete, open_output, require_absent

MAX_BYTES = 48 * 1024**3
"""The largest archive that any source may have."""
RETRIES = 4
LOCK_POLL_S = 0.2
COPY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class ArchiveRequest:
    """An archive that a user names. Without ``sha256``, it may have any bytes.

    ``rev`` is a node, or any name that the host resolves. ``suffix`` is a format such as ``zip``.
    """

    source: str
    repo: str
    rev: str
    subdir: str = ""
    suffix: str = "tar.gz"
    sha256: str = ""
    region: str = ""

    @property
    def query(self) -> Mapping[str, str | None]:
        """The parameters of a request, of which the empty ones are left out."""
        return {
            "subdir": self.subdir,
            "suffix": self.suffix,
            "preferred_region": self.region,
            "sha256": self.sha256,
        }


@dataclass(frozen=True)
class Proof:
    """The verdict on an archive that carries a commit record, and a sentence about it."""

    verdict: str
    sentence: str


Prove = Callable[[Path, Located, str, Deadline], "Proof | None"]
"""Returns the proof of a file, of which the archive's location and subdir are given.

Raises WrongBytes if the file contradicts them."""


@dataclass(frozen=True)
class Got:
    """An archive that is complete at ``path``. ``proof`` needs a commit record."""

    located: Located
    path: str
    waited: bool
    downloaded: bool
    proof: Proof | None


@dataclass(frozen=True)
class ArchiveGet:
    """Gets archives before the *deadline*, from the first of the servers that responds.

    The *clients* are in order of preference. One that responded comes first from then on.
    """

    clients: list[ApiClient]
    events: Events
    deadline: Deadline
    prove: Prove | None = None
    wait_s: float | None = None
    retries: int = RETRIES
    max_bytes: int = MAX_BYTES
    cache: Cache | None = None

    def get(
        self, request: ArchiveRequest, output: str | None = None, *, force: bool = False
    ) -> Got:
        """Store the archive at *output*; without it, under its own name.

        Under its own name, it replaces another file only with *force*. Raises CommandFailed.
        """
        located, waited = self._locate(request, request.rev, request.region)
        _require_wanted(request, located)
        if located.size_bytes > self.max_bytes:
            raise CommandFailed(
                f"the archive has {located.size_bytes:,} bytes; "
                f"--max-bytes allows {self.max_bytes:,}"
            )
        path, replace = output or located.file_name, bool(output) or force
        downloaded = False
        if not replace and _exists(Path(path), located):
            proof = self._prove(Path(path), request, located)
        elif self.cache:
            stored = self.cache.path(located.sha256)
            located, proof, downloaded = self._store(request, located, str(stored), replace=True)
            self.cache.keep(stored)
            _copy(stored, located, path, replace=replace)
        else:
            located, proof, downloaded = self._store(request, located, path, replace=replace)
        return Got(located=located, path=path, waited=waited, downloaded=downloaded, proof=proof)

    def locate(self, request: ArchiveRequest) -> Located:
        """Return where the archive is, once it is built. Raises CommandFailed."""
        located, _ = self._locate(request, request.rev, request.region)
        _require_wanted(request, located)
        return located

    def _locate(self, request: ArchiveRequest, rev: str, region: str) -> tuple[Located, bool]:
        query = {**request.query, "preferred_region": region}
        failure = RetryLater("there is no server to ask")
        for client in [*self.clients]:
            url = client.archive_url(request.source, request.repo, rev, query)
            wait = ArchiveWait(client, self.events, self.deadline, self.wait_s)
            try:
                found = wait.locate(url)
            except (Unfinished, LimitReached):
                raise
            except RetryLater as exc:
                failure = exc
                if len(self.clients) > 1:
                    self.events.notice(exc.message)
            else:
                self.clients.remove(client)
                self.clients.insert(0, client)
                return found
        raise failure

    def _store(
        self, request: ArchiveRequest, located: Located, path: str, *, replace: bool
    ) -> tuple[Located, Proof | None, bool]:
        """Download the archive, unless another process does so. Return whether this one did."""
        told, file = False, Path(path)
        while True:
            if (told or self.cache) and is_complete(file, located.sha256, located.size_bytes):
                return located, self._prove(file, request, located), False
            try:
                located, proof = self._download(request, located, path, replace=replace)
            except BeingWritten as exc:
                if not told:
                    self.events.notice(f"{exc.message}; waiting for it")
                told = True
                self.deadline.sleep(LOCK_POLL_S)
            else:
                return located, proof, True

    def _download(
        self, request: ArchiveRequest, located: Located, path: str, *, replace: bool
    ) -> tuple[Located, Proof | None]:
        """Download the archive, and prove it before the file gets its name."""

        def locate(node: str, region: str) -> Located:
            fresh, _ = self._locate(request, node, region)
            self.events.update("download", writer.size_bytes, located.size_bytes)
            return fresh

        with open_output(
            path,
            sha256=located.sha256,
            size_bytes=located.size_bytes,
            replace=replace,
            on_kept=self.events.kept,
        ) as writer:
            self.events.update("download", writer.size_bytes, located.size_bytes)
            download = ResumableDownload(
                client=self.clients[0],
                locate=locate,
                retries=self.retries,
                events=self.events,
                deadline=self.deadline,
            )
            located = download.fetch(located, writer)
            stored = writer.stored_path()
            return located, self._prove(stored, request, located) if stored else None

    def _prove(self, path: Path, request: ArchiveRequest, located: Located) -> Proof | None:
        if self.prove is None:
            return None
        self.events.update("proving", 0)
        return self.prove(path, located, request.subdir.strip("/"), self.deadline)


def _require_wanted(request: ArchiveRequest, located: Located) -> None:
    """Raise WrongBytes if the server leads to other bytes than the user insists on.

    It would not, but the download is compared with the sum that the server names.
    """
    sha256 = (request.sha256 or located.sha256).lower()
    if located.sha256 != sha256:
        raise WrongBytes(f"the server offers the SHA-256 {located.sha256}, not {sha256}")


def _exists(path: Path, located: Located) -> bool:
    """Return whether the file is complete. Raises CommandFailed if another one exists."""
    if is_complete(path, located.sha256, located.size_bytes):
        return True
    require_absent(path)
    return False


def _copy(stored: Path, located: Located, path: str, *, replace: bool) -> None:
    """Write an archive of the cache to *path*. Raises WrongBytes if it has changed meanwhile."""
    try:
        with (
            stored.open("rb") as source,
            open_output(
                path, sha256=located.sha256, size_bytes=located.size_bytes, replace=replace
            ) as writer,
        ):
            source.seek(writer.size_bytes)
            while chunk := source.read(COPY_BYTES):
                writer.write(chunk)
            if writer.sha256 != located.sha256:
                raise WrongBytes(f"{stored} has changed; remove it")
    except FileNotFoundError as exc:
        raise RetryLater(f"{stored} was removed; try again") from exc
