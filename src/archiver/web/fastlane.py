"""Stands before the application: what was answered a moment ago is answered from memory.

And what is being looked up for one client is not looked up for others who ask for the very same:
they wait for that answer, and are given it too if it may be given again.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from archiver.model import Region
from archiver.web.answers import Again, Answer, Answers, Target
from archiver.web.clients import Clients
from archiver.web.exchange import Exchange, request_id
from archiver.web.ledger import Ledger
from archiver.web.targets import is_too_long

_TURN = "archiver.turn"
_PREFIXES = (b"/archiver/", b"/get/", b"/sha256/")
_STATUS_PREFIX = b"/archiver/status/"


@dataclass(slots=True, kw_only=True)
class Turn:
    """One request's turn at the application; ``began`` when the request came, by ``perf_counter``.

    ``ended`` is waited for by its ``followers``, requests for the same that came meanwhile.
    """

    target: Target
    moment: int
    began: float
    leave: Callable[["Turn"], None] = lambda _: None
    followers: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """Let the followers go on."""
        self.ended.set()
        self.leave(self)


class FastLane:
    """An ASGI application around two others: of *archives*, and of everything else."""

    def __init__(
        self,
        *,
        archives: ASGIApp,
        others: ASGIApp,
        answers: Answers,
        ledger: Ledger,
        clients: Clients,
    ) -> None:
        self._archives = archives
        self._others = others
        self._answers = answers
        self._ledger = ledger
        self._clients = clients
        self._turns: dict[Target, Turn] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _leads_to_an_archive(scope):
            await self._others(scope, receive, send)
            return
        began = time.perf_counter()
        region = self._clients.region(scope)
        target = Target(scope["method"], scope["raw_path"], scope["query_string"], region)
        answer = self._answer(target, scope) or await self._follow(target, scope)
        if answer:
            await self._give(answer, scope, send, began)
        else:
            await self._take_turn(target, scope, receive, send, began)

    def _answer(self, target: Target, scope: Scope) -> Answer | None:
        answer = self._answers.get(target)
        if answer and not answer.is_hit and any(name == b"prefer" for name, _ in scope["headers"]):
            return None  # of a miss, such a client is told otherwise
        return answer

    async def _follow(self, target: Target, scope: Scope) -> Answer | None:
        """Return how the turn of another request for the same ends, if that is to be repeated."""
        turn = self._turns.get(target)
        if turn is None:
            return None
        turn.followers += 1
        await turn.ended.wait()
        return self._answer(target, scope)

    async def _take_turn(
        self, target: Target, scope: Scope, receive: Receive, send: Send, began: float
    ) -> None:
        turn = Turn(target=target, moment=self._answers.moment, began=began)
        if self._answers.keeps(target) and target not in self._turns:
            self._turns[target] = turn
            turn.leave = self._forget
        scope[_TURN] = turn
        try:
            await self._archives(scope, receive, send)
        finally:
            turn.end()

    def _forget(self, turn: Turn) -> None:
        if self._turns.get(turn.target) is turn:
            del self._turns[turn.target]

    async def _give(self, answer: Answer, scope: Scope, send: Send, began: float) -> None:
        name = request_id(scope["headers"])
        headers = [*answer.headers, (b"x-request-id", name.encode())]
        if answer.retry_after:
            headers.append((b"retry-after", b"%d" % answer.retry_after()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})
        exchange = Exchange(
            request_id=name, source=answer.source, outcome=answer.outcome, status=answer.status
        )
        duration_s = time.perf_counter() - began
        self._ledger.enter(exchange, scope, route=answer.route, duration_s=duration_s)


def _leads_to_an_archive(scope: Scope) -> bool:
    raw_path: bytes = scope["raw_path"]
    if is_too_long(scope):
        return False
    return raw_path.startswith(_PREFIXES) and not raw_path.startswith(_STATUS_PREFIX)


def region(scope: Scope) -> Region | None:
    """Return the region near the client of *scope*, as it was when the request came."""
    turn: Turn = scope[_TURN]
    return turn.target.region


def age_s(scope: Scope) -> float:
    """Return for how long the client of *scope* has waited by now."""
    turn: Turn = scope[_TURN]
    return time.perf_counter() - turn.began


def comes_again(answers: Answers, scope: Scope) -> bool:
    """Tell whether the request of *scope* is not the first, so that its answer is worth keeping."""
    turn: Turn = scope[_TURN]
    return answers.comes_again(turn.target) or turn.followers > 0


def offer(answers: Answers, scope: Scope, answer: Answer, again: Again | None = None) -> None:
    """Have others who ask the same as the request of *scope* given the same *answer*."""
    turn: Turn = scope[_TURN]
    answers.offer(turn.target, answer, again, moment=turn.moment)
    turn.end()


def take_time(scope: Scope) -> None:
    """Let those go who wait for how this request is answered: it is going to be held."""
    turn: Turn = scope[_TURN]
    turn.end()
