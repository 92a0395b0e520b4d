"""Whether a version-control host answers, resolves a rev, and sends archives."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from http import HTTPStatus

from archiver.diagnosis.finding import Finding, Level, failure, warning, well
from archiver.errors import (
    ArchiverError,
    BadArchive,
    ForbiddenAddress,
    InvalidRequest,
    NotFound,
    SourceBusy,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    SuffixRefused,
)
from archiver.model import Archive, Node
from archiver.names import display_rev
from archiver.ports.diagnosis import Reach, Unreachable
from archiver.ports.source import Source

_SILENT = (SourceUnavailable, SourceTimeout, ForbiddenAddress)
"""The host may be away, and says more about that itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A repo and a rev with which a source is tried."""

    repo: str
    rev: str


class SourceCheck:
    """Examines the source *name*: each of *samples*, or its host alone without any.

    *detect* returns the suffix of an archive that begins with these bytes. If the source *makes*
    its archives of a mirror, none is requested.
    """

    def __init__(
        self,
        *,
        name: str,
        reach: Reach,
        open_source: Callable[[], AbstractAsyncContextManager[Source]],
        samples: Sequence[Sample],
        makes: bool,
        detect: Callable[[bytes], str],
    ) -> None:
        self._name = name
        self._reach = reach
        self._open_source = open_source
        self._samples = samples
        self._makes = makes
        self._detect = detect

    async def run(self) -> AsyncGenerator[Finding, None]:
        if not self._samples:
            yield await self._host()
            return
        async with self._open_source() as source:
            for sample in self._samples:
                async with aclosing(self._try(source, sample)) as findings:
                    async for finding in findings:
                        yield finding

    async def _host(self) -> Finding:
        check = f"source.{self._name}.host"
        match await self._reach():
            case Unreachable(found=found, check=what):
                return failure(check, found, f"check {what}")
            case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                found = f"the host answers with the status {status}"
                return warning(check, found, "wait, or ask the operators of the host")
            case status:
                return well(check, f"the host answers (status {status})")

    async def _try(self, source: Source, sample: Sample) -> AsyncGenerator[Finding, None]:
        check = f"source.{self._name}.resolve"
        try:
            node = await source.resolve(sample.repo, sample.rev)
        except _SILENT as exc:
            host = await self._host()
            yield host if host.level is Level.FAILED else self._explain(check, exc)
            return
        except ArchiverError as exc:
            yield self._explain(check, exc)
            return
        yield well(check, f"the rev {display_rev(sample.rev)} of {sample.repo} is {node}")
        check = f"source.{self._name}.archive"
        if self._makes:
            yield well(check, "workers make the archives, from a mirror of the repository")
        else:
            yield await self._archive(check, source, sample.repo, node)

    async def _archive(self, check: str, source: Source, repo: str, node: Node) -> Finding:
        """Return whether the host sends an archive of the right type. Reads its beginning only."""
        archive = Archive(
            source=self._name, repo=repo, node=node, subdir="", suffix=source.served.suffixes[0]
        )
        try:
            async with source.open(archive) as stream, aclosing(stream.chunks) as chunks:
                start = await anext(chunks, b"")
        except ArchiverError as exc:
            return self._explain(check, exc)
        setting = f"sources.{self._name}.suffixes"
        if not start:
            return failure(check, "the host sends an empty archive", "ask the host's operators")
        if (suffix := self._detect(start)) != archive.suffix:
            found = f"the host sends {suffix} for {archive.suffix}"
            return failure(check, found, f"correct {setting}")
        return well(check, f"the host sends {suffix}")

    def _explain(self, check: str, exc: ArchiverError) -> Finding:
        setting = f"sources.{self._name}"
        match exc:
            case NotFound() | InvalidRequest():
                action = f"try --repo with another repository, or check {setting}.url_template"
            case SourceBusy():
                action = f"wait, or lower {setting}.concurrency and {setting}.lookup_concurrency"
            case SuffixRefused():
                action = f"correct {setting}.suffixes or {setting}.fetch_suffix"
            case SourceRefused():
                action = f"check {setting}.url_template, and {setting}.token if it is private"
            case BadArchive():
                action = f"check {setting}.url_template, with which the host should send archives"
            case _:
                action = "run it again; if it lasts, ask the operators of the host"
        what = "archive" if check.endswith(".archive") else "node"
        return failure(check, f"no {what}: {exc.message} ({exc.code})", action)
