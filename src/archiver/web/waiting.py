"""``wait=N`` and ``Prefer: wait=N`` (RFC 7240): how long a client will wait, and the waiting."""

import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta

from starlette.responses import Response
from starlette.types import Receive, Scope

from archiver.errors import InvalidRequest, TaskFailed
from archiver.model import Archive, Ready
from archiver.service import Archiver
from archiver.tasks import TaskState
from archiver.telemetry import METRICS
from archiver.web.headers import header
from archiver.web.seats import Holding, Seats
from archiver.web.targets import HOP, SECONDS, whole
from archiver.web.watches import Sought, Watch, Watches, Woken, leaving, open_watches, pause

LAST_HOLD_S = 1.0
"""Of a process that is about to end."""

EARLY_S = 0.01
"""So much before its time a timer may end a hold: that is no second to wait for."""

HOLDS_MAX = 9
"""Of one request: eight redirects to itself and one to S3. Go and aiohttp follow nine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client will wait: ``wait_s`` in all from now, None if a 202 will do at once.

    ``hop`` counts the holds that came before. With ``or_202``, a 202 will do afterwards.
    ``preferred`` says that it was asked for by a header.
    """

    wait_s: int | None = None
    hop: int = 0
    or_202: bool = False
    preferred: bool = False

    @property
    def applied(self) -> str:
        """What ``Preference-Applied`` says."""
        wait = [] if self.wait_s is None else [f"wait={self.wait_s}"]
        return ", ".join([*wait, *(["respond-async"] if self.or_202 else [])])

    def hold_s(self, holding: Holding) -> float:
        """Return how long to hold this request."""
        return min(self.wait_s or 0, holding.hold_s)

    def after(self, held_s: float) -> "Patience | None":
        """Return what is left after a hold, or None if nothing is."""
        left_s = math.ceil((self.wait_s or 0) - held_s - EARLY_S)
        if left_s <= 0 or self.hop + 1 >= HOLDS_MAX or self.or_202:
            return None
        return Patience(wait_s=left_s, hop=self.hop + 1, preferred=self.preferred)


def parse_patience(
    query: Mapping[str, str], scope: Scope, holding: Holding, *, default_s: int | None = None
) -> Patience:
    """Return what ``wait`` and ``hop`` say, else what ``Prefer`` says, else *default_s*.

    More than nine holds is cut to that, as RFC 7240 allows.

    Raises:
        InvalidRequest: A parameter is no number, or ``hop`` is one that we never gave.
    """
    allowed = f"0 to {HOLDS_MAX - 1}"
    hop = whole(query, HOP, allowed) or 0
    if hop >= HOLDS_MAX:
        raise InvalidRequest(f"{HOP} is larger than any of ours", parameter=HOP, allowed=allowed)
    most_s = math.ceil(HOLDS_MAX * holding.hold_s)
    asked_s = whole(query, "wait", "a whole number of seconds")
    if asked_s is not None:
        return Patience(wait_s=min(asked_s, most_s), hop=hop)
    if preferred := _preferred(header(scope, b"prefer"), holding, most_s):
        return preferred
    return Patience(wait_s=default_s, hop=hop)


def _preferred(prefer: str, holding: Holding, most_s: int) -> Patience | None:
    """Return what the ``Prefer`` header asks for. Malformed preferences are ignored."""
    preferences: dict[str, str] = {}
    for name, value in map(_preference, prefer.split(",")):
        preferences.setdefault(name, value)
    or_202 = "respond-async" in preferences
    if not SECONDS.fullmatch(preferences.get("wait", "")):
        return Patience(or_202=True, preferred=True) if or_202 else None
    most_s = math.floor(holding.hold_s) if or_202 else most_s
    return Patience(wait_s=min(int(preferences["wait"]), most_s), or_202=or_202, preferred=True)


def _preference(text: str) -> tuple[str, str]:
    """Return name and value of one preference (RFC 7240, section 2), without its parameters."""
    name, _, value = text.partition(";")[0].partition("=")
    return name.strip().lower(), value.strip().removeprefix('"').removesuffix('"')


class Waiting:
    """Who waits in this process, and for what."""

    def __init__(self, *, watches: Watches, seats: Seats, stream_seats: Seats) -> None:
        self._watches = watches
        self._seats = seats
        self._stream_seats = stream_seats

    async def hold(
        self,
        archive: Archive,
        sought: Sought,
        *,
        render: Callable[[Ready], Response],
        hold_s: float,
        client: str,
        receive: Receive,
    ) -> Response | Woken:
        """Return what *render* makes of where *archive* is as soon as it is there.

        Others get the same response. Else return why it is not waited for longer.

        Raises:
            TaskFailed: It will not be there.
            TooManyWaiters: There is no room to wait.
        """
        with self.watch(archive, client) as watch:
            if watch.closing:
                hold_s = min(hold_s, LAST_HOLD_S)
            with leaving(receive) as left:
                woken = await pause(watch.for_end, hold_s, left)
            if woken is not Woken.NEWS:
                return woken
            _raise_failure(watch)
            return await watch.answer(sought, render) or Woken.TIME

    def close(self) -> None:
        """Let everyone go who waits."""
        self._watches.close()

    @contextmanager
    def watch(self, archive: Archive, client: str) -> Iterator[Watch]:
        """Yield the watch of *archive*. Raises TooManyWaiters if there is no room to wait."""
        with self._seats.seat(client), self._watches.watch(archive) as watch:
            yield watch

    @contextmanager
    def stream(self, archive: Archive, client: str) -> Iterator[Watch]:
        """As ``watch``, for who stays on."""
        with self._stream_seats.seat(client), self._watches.watch(archive) as watch:
            yield watch


def _raise_failure(watch: Watch) -> None:
    task = watch.status.task if watch.status else None
    if task and task.state is TaskState.FAILURE:
        code, message = (
            (task.error.code, task.error.message) if task.error else ("internal_error", "it failed")
        )
        raise TaskFailed(message, code=code)


@asynccontextmanager
async def open_waiting(archiver: Archiver, holding: Holding) -> AsyncIterator[Waiting]:
    """Yield an empty waiting room."""
    patience = timedelta(seconds=holding.hold_s)
    async with open_watches(archiver) as watches:
        yield Waiting(
            watches=watches,
            seats=Seats(
                total=holding.waiters,
                per_client=holding.waiters_per_client,
                patience=patience,
                taken=METRICS.waiters,
            ),
            stream_seats=Seats(
                total=holding.event_streams,
                per_client=holding.event_streams_per_client,
                patience=patience,
                taken=METRICS.event_streams,
            ),
        )
