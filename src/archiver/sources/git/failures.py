"""The errors of a git host, and of the texts that it sends in place of a response."""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from archiver.errors import (
    ArchiverError,
    BadPack,
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    UnknownRepo,
    UnknownRev,
    UnsupportedHost,
)
from archiver.names import display_rev
from archiver.sources.git.capabilities import UnsupportedError
from archiver.sources.git.pkt_line import InBandError, MalformedPktLineError
from archiver.sources.response import HostResponse
from archiver.telemetry import log

TEXT_MAX_CHARS = 200
"""Length of a host's text in the log."""

_UNKNOWN_NODE = re.compile(rb"not our ref [0-9a-f]|want [0-9a-f]{40,64} not valid")
"""The texts of git (``upload-pack.c``) and of JGit (``WantNotValidException``)."""

_BUSY = re.compile(rb"limit|quota|exhausted|temporar|too many|overload|try again", re.IGNORECASE)
"""GitHub: "temporarily limiting some unauthenticated downloads"."""


class Failures:
    """Builds the errors of the source *name*, and logs texts of the host that have no error."""

    def __init__(self, name: str, *, authorization: str = "") -> None:
        self._name = name
        self._secrets = _secrets_in(authorization)

    def of_response(self, repo: str, response: HostResponse) -> ArchiverError | None:
        """Return the error for the status of a response, or None. Hosts hide private repos."""
        match response.status:
            case HTTPStatus.OK:
                return None
            case HTTPStatus.FORBIDDEN if retry_after := response.retry_after:
                return SourceBusy(f"{self._name} is busy (403)", retry_after=retry_after)
            case HTTPStatus.UNAUTHORIZED if response.was_authorized:
                return SourceRefused(f"{self._name} does not accept the token in the settings")
            case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN | HTTPStatus.NOT_FOUND:
                return self.unknown_repo(repo)
            case _:
                return response.error

    def unknown_repo(self, repo: str) -> UnknownRepo:
        return UnknownRepo(f"{self._name} has no repository {repo}, or it is private")

    def unknown_rev(self, repo: str, rev: str) -> UnknownRev:
        return UnknownRev(f"{self._name} has no revision {display_rev(rev)} in {repo}")

    def unknown_digits(self, repo: str, digits: str) -> UnknownRev:
        return UnknownRev(
            f"{self._name} has no branch or tag {digits} in {repo}, and none at a commit that "
            "begins with these digits: request the commit by its full id"
        )

    def ambiguous(self, repo: str, digits: str) -> UnknownRev:
        return UnknownRev(f"{self._name} has several revisions {digits} in {repo}")

    def too_many_refs(self, repo: str) -> UnknownRev:
        return UnknownRev(
            f"{self._name} lists too many refs in {repo} to search all of them: "
            "request a branch or a tag by its name, or a commit by its full id"
        )

    def malformed(self) -> SourceUnavailable:
        return SourceUnavailable(f"{self._name} sent a response that git would not send")

    def empty(self) -> SourceUnavailable:
        """Return the error for no response, which git sends for ids of the wrong length."""
        return SourceUnavailable(
            f"{self._name} sent an empty response: it failed, or the repository's object format "
            "has changed"
        )

    def bad_pack(self, fault: str) -> BadPack:
        return BadPack(f"{self._name} {fault}")

    def reported(self, text: bytes, otherwise: SourceError | None = None) -> SourceError:
        """Return the error for a *text* of the host, which goes to the log only.

        *otherwise* is the error for a text that does not ask for a pause.
        """
        self.note(text)
        if _BUSY.search(text):
            return SourceBusy(f"{self._name} asks for a pause", retry_after=None)
        return otherwise or SourceUnavailable(f"{self._name} reports an error of its own")

    def note(self, text: bytes) -> None:
        """Log a *text* of the host."""
        log.warning("host.reported", source=self._name, text=self._display(text))

    @contextmanager
    def translated(
        self,
        *,
        on_unknown_node: ArchiverError | None = None,
        malformed: ArchiverError | None = None,
    ) -> Iterator[None]:
        """Translate the errors of a response in git's protocol."""
        try:
            yield
        except InBandError as exc:
            if on_unknown_node and _UNKNOWN_NODE.search(exc.text):
                raise on_unknown_node from exc
            raise self.reported(exc.text) from exc
        except MalformedPktLineError as exc:
            raise (malformed or self.malformed()) from exc
        except UnsupportedError as exc:
            raise UnsupportedHost(f"{self._name} {exc.reason}") from exc

    def _display(self, text: bytes) -> str:
        """Return *text* for the log: short, printable, without the configured secret."""
        shown = text.decode(errors="replace")
        for secret in self._secrets:
            shown = shown.replace(secret, "(secret)")
        printable = "".join(char if char.isprintable() else " " for char in shown[:TEXT_MAX_CHARS])
        return " ".join(printable.split())


def _secrets_in(authorization: str) -> tuple[str, ...]:
    """Return the parts of a header's value that a host may repeat: Basic has a password."""
    credentials = authorization.rpartition(" ")[2]
    try:
        password = b64decode(credentials, validate=True).decode().partition(":")[2]
    except (Base64Error, UnicodeDecodeError):
        password = ""
    return tuple(filter(None, (credentials, password)))
