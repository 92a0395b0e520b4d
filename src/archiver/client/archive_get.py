"""Gets an archive: locate it, wait for it, download it, verify it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from archiver.client.api_response import Located
from archiver.client.archive_request import ArchiveRequest
from archiver.client.archive_wait import ArchiveWait
from archiver.client.cache import Cache
from archiver.client.deadline import Deadline
from archiver.client.download import ResumableDownload
from archiver.client.events import Events
from archiver.client.extraction import Extraction, Unpacking, open_extraction
from archiver.client.failures import (
    BeingWritten,
    CommandFailed,
    RetryLater,
    WrongBytes,
)
from archiver.client.output import is_complete, open_output, require_absent
from archiver.client.servers import Servers

MAX_BYTES = 48 * 1024**3
"""The largest archive that any source may have."""
RETRIES = 4
LOCK_POLL_S = 0.2
COPY_BYTES = 1024 * 1024


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
    """An archive that is complete at ``path``, or of which ``files`` were extracted, or both.

    ``proof`` needs a commit record.
    """

    located: Located
    path: str | None
    waited: bool
    downloaded: bool
    proof: Proof | None
    files: int | None = None


@dataclass(frozen=True)
class _Target:
    """Where the bytes of an archive go. Unless the file ``stays``, it is removed in the end."""

    path: str
    replace: bool
    extraction: Extraction | None
    stays: bool


@dataclass(frozen=True)
class ArchiveGet:
    """Gets archives before the *deadline*, from the first of the servers that responds.

    The *servers* are asked in their order of preference.
    """

    servers: Servers
    events: Events
    deadline: Deadline
    prove: Prove | None = None
    wait_s: float | None = None
    retries: int = RETRIES
    max_bytes: int = MAX_BYTES
    cache: Cache | None = None

    def get(
        self,
        request: ArchiveRequest,
        output: str | None = None,
        *,
        force: bool = False,
        unpacking: Unpacking | None = None,
    ) -> Got:
        """Store the archive at *output*; without it, under its own name.

        Under its own name, it replaces another file only with *force*. With *unpacking*, it is also
        extracted, and only stored if *output* names a file. Raises CommandFailed.
        """
        located, waited = self._locate(request, request.rev, request.region)
        _require_wanted(request, located)
        if located.size_bytes > self.max_bytes:
            raise CommandFailed(
                f"the archive has {located.size_bytes:,} bytes; "
                f"--max-bytes allows {self.max_bytes:,}"
            )
        opened = open_extraction(unpacking) if unpacking else nullcontext()
        with ExitStack() as held, opened as extraction:
            target = _Target(
                path=output or _own_path(located, unpacking),
                replace=bool(output or unpacking) or force,
                extraction=extraction,
                stays=bool(output) or unpacking is None,
            )
            return self._bring(request, located, target, held, waited=waited)

    def _bring(
        self,
        request: ArchiveRequest,
        located: Located,
        target: _Target,
        held: ExitStack,
        *,
        waited: bool,
    ) -> Got:
        """Get the archive from the place where it is already, from the cache, or from S3."""
        file, downloaded = Path(target.path), False
        if not target.replace and _exists(file, located):
            proof = self._prove(file, request, located)
        elif self.cache:
            file = self.cache.path(located.sha256)
            cached = replace(target, path=str(file), replace=True)
            located, proof, downloaded = self._store(request, located, cached, held)
            if target.stays:
                self._copy(file, located, target)
        else:
            located, proof, downloaded = self._store(request, located, target, held)
        files = None
        if target.extraction:
            self.events.update("extracting", 0)
            try:
                files = target.extraction.finish(file)
            finally:
                if not (target.stays or self.cache):
                    file.unlink(missing_ok=True)
        if self.cache and str(file) != target.path:
            self.cache.keep(file)
        return Got(
            located=located,
            path=target.path if target.stays else None,
            waited=waited,
            downloaded=downloaded,
            proof=proof,
            files=files,
        )

    def locate(self, request: ArchiveRequest) -> Located:
        """Return where the archive is, once it is built. Raises CommandFailed."""
        located, _ = self._locate(request, request.rev, request.region)
        _require_wanted(request, located)
        return located

    def _locate(self, request: ArchiveRequest, rev: str, region: str) -> tuple[Located, bool]:
        query = {**request.query, "preferred_region": region}
        failure: CommandFailed = RetryLater("there is no server to ask")
        for client in self.servers:
            url = client.archive_url(request.source, request.repo, rev, query)
            wait = ArchiveWait(client, self.events, self.deadline, self.wait_s)
            try:
                found = wait.locate(url)
            except CommandFailed as exc:
                if not exc.elsewhere:
                    raise
                failure = exc
                if len(self.servers) > 1:
                    self.events.notice(exc.message)
            else:
                self.servers.prefer(client)
                return found
        raise failure

    def _store(
        self, request: ArchiveRequest, located: Located, target: _Target, held: ExitStack
    ) -> tuple[Located, Proof | None, bool]:
        """Download the archive, unless another process does so. Return whether this one did.

        In the cache, *held* keeps the file from being removed before it is used.
        """
        told, file = False, Path(target.path)
        while True:
            held.close()
            if (
                (told or self.cache)
                and self._hold(file, held)
                and is_complete(file, located.sha256, located.size_bytes)
            ):
                return located, self._prove(file, request, located), False
            try:
                located, proof = self._download(request, located, target)
            except BeingWritten as exc:
                told = self._wait_for_writer(exc, told=told)
            else:
                if self._hold(file, held):
                    return located, proof, True
                if target.extraction:
                    target.extraction.restart()

    def _copy(self, stored: Path, located: Located, target: _Target) -> None:
        """Copy the archive from the cache, unless another process does so."""
        told, file = False, Path(target.path)
        while True:
            if told and is_complete(file, located.sha256, located.size_bytes):
                return
            try:
                _write_copy(stored, located, target)
            except BeingWritten as exc:
                told = self._wait_for_writer(exc, told=told)
            else:
                return

    def _wait_for_writer(self, exc: BeingWritten, *, told: bool) -> bool:
        """Wait a moment, and return that the user knows."""
        if not told:
            self.events.notice(f"{exc.message}; waiting for it")
        self.deadline.sleep(LOCK_POLL_S)
        return True

    def _hold(self, file: Path, held: ExitStack) -> bool:
        """Return whether the file is there. A file outside of the cache stays anyway."""
        if self.cache is None:
            return True
        wait = partial(self.deadline.sleep, LOCK_POLL_S)
        return held.enter_context(self.cache.hold(file, wait))

    def _download(
        self, request: ArchiveRequest, located: Located, target: _Target
    ) -> tuple[Located, Proof | None]:
        """Download the archive, and prove it before the file gets its name."""

        def locate(node: str, region: str) -> Located:
            fresh, _ = self._locate(request, node, region)
            self.events.update("download", writer.size_bytes, located.size_bytes)
            return fresh

        with open_output(
            target.path,
            sha256=located.sha256,
            size_bytes=located.size_bytes,
            replace=target.replace,
            durable=target.stays,
            sink=target.extraction,
            on_kept=self.events.kept,
        ) as writer:
            self.events.update("download", writer.size_bytes, located.size_bytes)
            download = ResumableDownload(
                client=self.servers.first,
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
        raise WrongBytes(
            f"the server offers the SHA-256 {located.sha256}, not {sha256}",
            hint="Nothing was downloaded. Check the SHA-256, the rev and the suffix.",
        )


def _exists(path: Path, located: Located) -> bool:
    """Return whether the file is complete. Raises CommandFailed if another one exists."""
    if is_complete(path, located.sha256, located.size_bytes):
        return True
    require_absent(path)
    return False


def _own_path(located: Located, unpacking: Unpacking | None) -> str:
    """Return where an archive is stored whose path the user did not name."""
    if unpacking is None:
        return located.file_name
    return str(unpacking.folder.with_name(f".{unpacking.folder.name}.{located.sha256[:12]}"))


def _write_copy(stored: Path, located: Located, target: _Target) -> None:
    """Write an archive of the cache to its path. Raises WrongBytes if it has changed meanwhile."""
    try:
        with (
            stored.open("rb") as source,
            open_output(
                target.path,
                sha256=located.sha256,
                size_bytes=located.size_bytes,
                replace=target.replace,
            ) as writer,
        ):
            source.seek(writer.size_bytes)
            while chunk := source.read(COPY_BYTES):
                writer.write(chunk)
            if writer.sha256 != located.sha256:
                raise WrongBytes(f"{stored} has changed; remove it")
    except FileNotFoundError as exc:
        raise RetryLater(f"{stored} was removed; try again") from exc
