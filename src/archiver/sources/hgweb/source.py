"""Mercurial's own web server, as hg.mozilla.org runs it.

It is asked in its wire protocol (``?cmd=``, see ``hg help internals.wireprotocol``), which answers
within milliseconds where its JSON takes minutes, whatever the theme, and takes names with slashes.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import msgspec
from yarl import URL

from archiver.errors import (
    ArchiverError,
    EmptyTree,
    InvalidRequest,
    NotAnArchive,
    NotPackable,
    ShadowedNode,
    SourceError,
    SourceTimeout,
    SourceUnavailable,
    SuffixRefused,
    UnknownRepo,
    UnknownRev,
    UnknownSubdir,
    UnprovenArchive,
)
from archiver.model import Archive, Node, Served, parse_node
from archiver.names import shown, shown_path
from archiver.ports.source import IdentityCheck
from archiver.runtime.bounded_cache import MEGABYTE, BoundedCache
from archiver.runtime.threads import run_in_thread
from archiver.sources.fetch import Answer, Fetch, open_fetch
from archiver.sources.hgweb.identity import HgArchivalCheck
from archiver.sources.hgweb.listings import (
    LEVELS_MAX,
    LISTING_MAX_BYTES,
    NAMES_MAX,
    Found,
    ListFolder,
    Listing,
    ListingTooDeep,
    ListingTooLong,
    file_after,
    last_file,
    parse_listing,
)
from archiver.sources.pace import RATE_WINDOW
from archiver.sources.perimeter import Perimeter
from archiver.telemetry import METRICS

QUESTION_DEADLINE = timedelta(seconds=10)
"""For an answer that takes the host milliseconds, and for waiting until it may be asked."""

LISTING_DEADLINE = timedelta(minutes=2)
"""For one folder, once it may be asked for: hgweb reads the whole manifest, and every file in the
folder that was never changed. With 300,000 files, that takes it seconds."""

ANSWER_MAX_BYTES = 4096

LOG_MAX_BYTES = 1 << 20
"""Of one entry of a log, which has the whole description of the changeset."""

_SLASH = "%2F"

LAST_FILES_MAX_BYTES = 4 * MEGABYTE

REV_ALLOWED = "tip, a branch, tag or bookmark, or a node of which 12 to 40 hex digits are given"

_NOBODY = frozenset({Node("0" * 40), Node("f" * 40)})
"""The parent of the first changeset, and a working directory: Mercurial knows them everywhere."""

_MISUNDERSTOOD = frozenset({"", ".", "null", "tip~"})
"""``.`` is what the server happens to have checked out, secret or not."""

_LOCAL_NUMBER = re.compile(r"-?[0-9]{1,11}")
"""Counts changesets in the order in which this very server received them."""

_SUFFIX_REASONS = ("unsupported archive type", "archive type not allowed")

_ARCHIVE_NAME = re.compile(r"[A-Za-z0-9_-]*-([0-9a-f]{12})")

_FOUND = re.compile(rb"1 ([0-9a-f]{40})\n")
_AMBIGUOUS = b"ambiguous identifier\n"


_DATES = {"tar.gz": range(1 << 32), "zip": range(-(1 << 63), 1 << 31)}
"""The dates, in seconds since 1970, for which hgweb has room in each format that has not for all.
Before 1980, it writes 1980 to a zip."""


class _AmbiguousRev(UnknownRev):
    """The digits that are given begin more than one node."""


class _InexpressibleRev(UnknownRev):
    """The host crashes over the name, which is beyond ASCII."""


class _Log(msgspec.Struct):
    """What of ``json-log/{rev}`` counts: the full node of the rev."""

    node: str


@dataclass(slots=True, kw_only=True)
class HgwebStream:
    """An archive as hgweb is sending it."""

    url: str
    root: str
    client_root: str
    size_bytes: int
    source: str
    answer: Answer

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        received = METRICS.source_bytes.labels(source=self.source)
        async with aclosing(self.answer.chunks()) as chunks:
            async for chunk in chunks:
                received.inc(len(chunk))
                yield chunk


class HgwebSource:
    """One hgweb, to which *url_template* leads: up to ``{repo}`` it is a repository's address."""

    def __init__(
        self,
        *,
        name: str,
        url_template: str,
        served: Served,
        lookup_concurrency: int,
        deadline: timedelta,
        fetch: Fetch,
        trusted: bool = False,
        question_deadline: timedelta = QUESTION_DEADLINE,
    ) -> None:
        self.name = name
        self.fetchable = served.nearest
        self.candidates = served.candidates
        self.wants_verbatim = served.wants_verbatim
        self._url_template = url_template
        self._repo_template = url_template[: url_template.index("{repo}") + len("{repo}")]
        self._deadline = deadline
        self._fetch = fetch
        self._question_deadline = question_deadline
        self._trusted = trusted
        self._questions = asyncio.Semaphore(lookup_concurrency)
        # Beside the questions: a listing may be slow, and no lookup waits for one.
        self._listings = asyncio.Semaphore(max(1, lookup_concurrency // 2))
        self._last_files: BoundedCache[Archive, bytes] = BoundedCache(
            max_bytes=LAST_FILES_MAX_BYTES
        )

    def url(self, archive: Archive) -> str:
        """Return the address of *archive*: by 12 digits, since its root is named after them."""
        parts = {
            "{repo}": _quoted(archive.repo),
            "{rev}": archive.node[:12],
            "{suffix}": _quoted(archive.suffix),
            "{subdir}": _quoted(archive.subdir),
        }
        url = self._url_template
        for placeholder, value in parts.items():
            url = url.replace(placeholder, value)
        return url if archive.subdir else url.removesuffix("/")

    def identity_check(self, archive: Archive) -> IdentityCheck:
        return HgArchivalCheck(archive.node)

    def check_rev(self, rev: str) -> None:
        if rev in _MISUNDERSTOOD or _LOCAL_NUMBER.fullmatch(rev):
            raise InvalidRequest(
                f"rev {shown(rev)!r} means something else on each server: "
                "ask for the changeset by its node",
                parameter="rev",
                allowed=REV_ALLOWED,
            )

    async def resolve(self, repo: str, rev: str) -> Node:
        self.check_rev(rev)
        with self._counted():
            try:
                answer = await self._ask(
                    repo, f"?cmd=lookup&key={_quoted(rev)}", on_crash=self._inexpressible(rev)
                )
            except _InexpressibleRev:
                return await self._resolve_by_log(repo, rev)
            found = _FOUND.fullmatch(answer)
            if found and (node := Node(found[1].decode())) not in _NOBODY:
                return node
            if answer.endswith(_AMBIGUOUS):
                raise _AmbiguousRev(f"{self.name} has several revisions {shown(rev)} in {repo}")
            if found or answer.startswith(b"0 "):
                raise self._unknown_rev(repo, rev)
            raise self._unintelligible()

    async def _resolve_by_log(self, repo: str, rev: str) -> Node:
        """Return the node of a name beyond ASCII, which an older hgweb reads from a path alone.

        Such an hgweb decodes the path, and then reads ``%2F`` as a slash. Of a path with a colon,
        it reads what is behind; no name has one.
        """
        if ":" in rev:
            raise self._unknown_rev(repo, rev)
        inexpressible = self._inexpressible(rev)
        if inexpressible and _SLASH in rev:
            raise inexpressible
        path = quote(rev.replace("/", _SLASH), safe="")
        answer = await self._ask(
            repo,
            f"/json-log/{path}?revcount=1",
            on_crash=inexpressible,
            on_missing=self._unknown_rev(repo, rev),
            most=LOG_MAX_BYTES,
        )
        try:
            node = parse_node(msgspec.json.decode(answer, type=_Log).node)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            node = None
        if node is None or node in _NOBODY:
            raise self._unintelligible()
        return node

    async def has_node(self, repo: str, node: Node) -> bool:
        with self._counted():
            answer = await self._ask(repo, f"?cmd=known&nodes={node}")
            if answer not in {b"0", b"1"}:
                raise self._unintelligible()
            return answer == b"1" and node not in _NOBODY

    @asynccontextmanager
    async def open(self, archive: Archive) -> AsyncIterator[HgwebStream]:
        if archive not in self.candidates(archive):
            raise SuffixRefused(f"{self.name} does not serve such archives")
        await self._require_unshadowed(archive)
        url = self.url(archive)
        async with self._fetch.get(url, deadline=self._deadline) as answer:
            if failure := self._failure(archive, answer):
                raise await self._empty(archive, answer) or failure
            yield HgwebStream(
                url=url,
                root=_named_root(archive, answer) or _root(archive),
                client_root=_root(archive),
                size_bytes=answer.declared_bytes,
                source=self.name,
                answer=answer,
            )

    async def _require_unshadowed(self, archive: Archive) -> None:
        """Return if the node's 12 digits mean the node; a bookmark could bear them as its name.

        Whatever goes wrong within hgweb, it says that a revision is unknown, as does a mirror that
        is behind. Of a node that is known a moment later, that is not believed for good.
        """
        try:
            meant: Node | None = await self.resolve(archive.repo, archive.node[:12])
        except _AmbiguousRev:
            meant = None
        except UnknownRev:
            if not await self.has_node(archive.repo, archive.node):
                raise self._unknown_rev(archive.repo, archive.node) from None
            raise SourceUnavailable(
                f"{self.name} knows {archive.node} in {archive.repo}, but not its first 12 digits"
            ) from None
        if meant != archive.node:
            raise ShadowedNode(
                f"{archive.node[:12]} means something else than {archive.node} in {archive.repo}"
            )

    async def last_file(self, archive: Archive) -> bytes | None:
        if self._trusted:
            return None
        tree = replace(archive, suffix="tar")  # one answer for all formats
        known = self._last_files.get(tree)
        if known is None:
            known = await self._last_file(tree)
            self._last_files.put(tree, known)
        return known

    async def _last_file(self, archive: Archive) -> bytes:
        """Return the path of the last file of *archive*.

        Raises:
            EmptyTree, UnknownSubdir: It has no files.
            SourceError: The host did not answer.
        """
        async with self._descending(archive) as list_folder:
            path = await last_file(list_folder, archive.subdir.encode())
            if path is None and await list_folder(b"") is None:
                raise self._unproven(archive)
        if path is None:
            raise UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")
        if not path:
            raise EmptyTree(f"{archive.node} in {archive.repo} has no files")
        return path

    async def unpackable(self, archive: Archive, *, after: bytes) -> NotPackable | None:
        if archive.suffix not in _DATES:
            return None
        async with self._descending(archive) as list_folder:
            found = await file_after(list_folder, archive.subdir.encode(), after)
        return _unpackable(archive, found, begun=bool(after)) if found else None

    @asynccontextmanager
    async def _descending(self, archive: Archive) -> AsyncIterator[ListFolder]:
        """Yield what lists the folders of *archive*, for as long as a fetch may take."""
        try:
            async with self._within(self._deadline):
                yield partial(self._list, archive)
        except ListingTooLong as exc:
            limits = f"{NAMES_MAX} names or {LISTING_MAX_BYTES >> 20} MiB"
            raise self._unproven(archive, f"lists more than {limits} in a folder") from exc
        except ListingTooDeep as exc:
            fault = f"nests folders more than {LEVELS_MAX} levels deep in the tree"
            raise self._unproven(archive, fault) from exc
        except ValueError as exc:
            raise self._unproven(archive) from exc

    async def _list(self, archive: Archive, folder: bytes) -> Listing | None:
        """Return what is in *folder*, or None if there is no such folder.

        Raises:
            ValueError: The host did not send a listing.
            SourceError: It did not answer.
        """
        path = quote(folder.rstrip(b"/"), safe="/")
        url = f"{self._repo_url(archive.repo)}/json-manifest/{archive.node}/{path}"
        async with self._listings:
            async with (
                self._within(LISTING_DEADLINE),
                self._fetch.get(url, deadline=LISTING_DEADLINE) as answer,
            ):
                match answer.status:
                    case 200 if not answer.is_html:
                        body = await answer.text(LISTING_MAX_BYTES)
                    case 404:
                        return None
                    case status if status != HTTPStatus.OK and answer.failure.retryable:
                        raise answer.failure
                    case _:
                        raise self._unproven(archive)
            # Still in turn: as many bodies are in memory as folders may be asked for.
            return await run_in_thread(parse_listing, body, node=archive.node, folder=folder)

    async def _empty(self, archive: Archive, answer: Answer) -> EmptyTree | None:
        """Return the reason for which hgweb refuses to pack a tree without files, if it is that."""
        if answer.status != HTTPStatus.FORBIDDEN or archive.subdir:
            return None
        with suppress(SourceError):
            try:
                await self._last_file(archive)
            except EmptyTree as exc:
                return exc
        return None

    def _unproven(
        self, archive: Archive, fault: str = "does not list the files"
    ) -> UnprovenArchive:
        return UnprovenArchive(
            f"{self.name} {fault} of {archive.node} in {archive.repo}, "
            f"so nothing proves that an archive has all of them (sources.{self.name}.completeness)"
        )

    def _failure(self, archive: Archive, answer: Answer) -> ArchiverError | None:
        """Return what keeps *answer* from being the archive; hgweb tells much in its reasons."""
        match answer.status:
            case 200 if answer.is_html:
                return NotAnArchive(f"{self.name} sent a page instead of an archive")
            case 200:
                return None
            case 403 | 404 if answer.reason.lower().startswith(_SUFFIX_REASONS):
                return SuffixRefused(f"{self.name} does not serve {archive.suffix}")
            case 404 if archive.subdir:
                return UnknownSubdir(f"there is no {archive.subdir} in {archive.repo}")
            case 404:
                return self._unknown_rev(archive.repo, archive.node)
            case _:
                return answer.failure

    async def _ask(
        self,
        repo: str,
        question: str,
        *,
        on_crash: ArchiverError | None = None,
        on_missing: ArchiverError | None = None,
        most: int = ANSWER_MAX_BYTES,
    ) -> bytes:
        """Return the answer at the repository's address with *question* behind it.

        Raises *on_crash* if the host crashes, *on_missing* if the repository lacks the thing.
        """
        url = f"{self._repo_url(repo)}{question}"
        async with (
            self._within(self._question_deadline),
            self._questions,
            self._fetch.get(url, deadline=self._question_deadline) as answer,
        ):
            match answer.status:
                case 200 if not answer.is_html:
                    return await answer.text(most)
                case 404 if on_missing and not answer.is_html:
                    raise on_missing
                case 200 | 404:  # a page is the list of a folder's repositories
                    raise UnknownRepo(f"{self.name} has no repository {repo}")
                case 500 if on_crash:
                    raise on_crash
                case _:
                    raise answer.failure

    @asynccontextmanager
    async def _within(self, deadline: timedelta) -> AsyncIterator[None]:
        """Give the block so long, with what it waits for before it asks the host."""
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                yield
        except TimeoutError as exc:
            raise SourceTimeout(f"{self.name} took too long") from exc

    def _repo_url(self, repo: str) -> str:
        return self._repo_template.replace("{repo}", _quoted(repo))

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except ArchiverError as exc:
            METRICS.resolves.labels(source=self.name, outcome=exc.code).inc()
            raise
        METRICS.resolves.labels(source=self.name, outcome="ok").inc()

    def _unknown_rev(self, repo: str, rev: str) -> UnknownRev:
        return UnknownRev(f"{self.name} has no revision {shown(rev)} in {repo}")

    def _inexpressible(self, rev: str) -> "_InexpressibleRev | None":
        """Return what a crash over *rev* means, if it is beyond ASCII.

        Mercurial 7 on Python 3.11 cannot parse a query beyond ASCII, but one on Python 3.13 can.
        """
        if rev.isascii():
            return None
        return _InexpressibleRev(
            f"{self.name} crashes when it is asked for {shown(rev)}: "
            "ask for the changeset by its node"
        )

    def _unintelligible(self) -> SourceUnavailable:
        return SourceUnavailable(f"{self.name} did not answer as an hgweb does")


@asynccontextmanager
async def open_hgweb(  # noqa: PLR0913 - the settings of a source, one by one
    *,
    name: str,
    url_template: str,
    served: Served,
    redirect_hosts: Sequence[str],
    allow_private_addresses: bool,
    lookup_concurrency: int,
    read_timeout: timedelta,
    deadline: timedelta,
    user_agent: str,
    min_rate_bytes_s: int = 0,
    min_rate_window: timedelta = RATE_WINDOW,
    ca_file: Path | None = None,
    trusted: bool = False,
) -> AsyncIterator[HgwebSource]:
    """Yield the source *name*. *read_timeout* and *deadline* are those of an archive's transfer.

    A *trusted* host is not asked which file comes last in an archive.
    """
    perimeter = Perimeter(
        home=URL(url_template.partition("{")[0]),
        redirect_hosts=tuple(redirect_hosts),
        allow_private_addresses=allow_private_addresses,
    )
    async with open_fetch(
        perimeter=perimeter,
        read_timeout=read_timeout,
        user_agent=user_agent,
        min_rate_bytes_s=min_rate_bytes_s,
        min_rate_window=min_rate_window,
        ca_file=ca_file,
    ) as fetch:
        yield HgwebSource(
            name=name,
            url_template=url_template,
            served=served,
            lookup_concurrency=lookup_concurrency,
            deadline=deadline,
            fetch=fetch,
            trusted=trusted,
        )


def _quoted(path: str) -> str:
    return "/".join(quote(segment, safe="") for segment in path.split("/"))


def _unpackable(archive: Archive, found: Found, *, begun: bool) -> NotPackable | None:
    """Return why hgweb, which packed nothing or has *begun*, breaks off before the file *found*."""
    dates = _DATES[archive.suffix]
    if not begun and found.date is not None and int(found.date) not in dates:
        moment = int(found.date)
        return NotPackable(
            f"hgweb cannot write the changeset's date, {moment}, to {archive.suffix}"
        )
    if archive.suffix == "zip":
        try:
            found.path.decode()
        except UnicodeDecodeError:
            return NotPackable(
                f"hgweb cannot write the file name {shown_path(found.path)} to zip: it is not UTF-8"
            )
    return None


def _named_root(archive: Archive, answer: Answer) -> str | None:
    """Return the root that the host names its file after, which is what it packs below.

    None if it does not say, or names something that hgweb would not.
    """
    named = _ARCHIVE_NAME.fullmatch(answer.file_name.removesuffix(f".{archive.suffix}"))
    return named[0] if named and named[1] == archive.node[:12] else None


def _root(archive: Archive) -> str:
    """Return the directory that clients expect.

    hgweb makes it of the repository's name, as bytes, and the rev. The name is that of the URL,
    unless its configuration has another one (``web.name``).
    """
    stem = re.sub(rb"\W+", b"-", archive.basename.encode()).decode("ascii")
    return f"{stem}-{archive.node[:12]}"
