"""``wait=N`` and ``Prefer: wait=N`` (RFC 7240): how long a client will wait."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from archiver.errors import InvalidRequest
from archiver.web.request_target import HOP, SECONDS, parse_number
from archiver.web.waiting.waiters import WaitLimits

TIMER_TOLERANCE_S = 0.01
"""A timer may end a hold this much early, which leaves no second to wait for."""

HOLDS_MAX = 9
"""Holds of one request: eight redirects to itself and one to S3. Go and aiohttp follow nine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitPreference:
    """``wait_s`` is how long the client will wait from now; None if it accepts a 202 at once.

    ``hop`` counts the holds before this one. With ``respond_async``, a 202 may follow the wait.
    ``from_header`` is true for a preference in ``Prefer``.
    """

    wait_s: int | None = None
    hop: int = 0
    respond_async: bool = False
    from_header: bool = False

    @property
    def applied(self) -> str:
        """The value of ``Preference-Applied``."""
        wait = [] if self.wait_s is None else [f"wait={self.wait_s}"]
        return ", ".join([*wait, *(["respond-async"] if self.respond_async else [])])

    def hold_s(self, limits: WaitLimits) -> float:
        """Return how long to hold this request."""
        return min(self.wait_s or 0, limits.hold_s)

    def after(self, held_s: float) -> "WaitPreference | None":
        """Return the preference for the next hold, or None if no time or hop is left."""
        left_s = math.ceil((self.wait_s or 0) - held_s - TIMER_TOLERANCE_S)
        if left_s <= 0 or self.hop + 1 >= HOLDS_MAX or self.respond_async:
            return None
        return WaitPreference(wait_s=left_s, hop=self.hop + 1, from_header=self.from_header)


def parse_wait_preference(
    query: Mapping[str, str], prefer: str, limits: WaitLimits, *, default_s: int | None = None
) -> WaitPreference:
    """Return the preference in *query*, else in the header *prefer*, else *default_s*.

    More than nine holds is cut to that, as RFC 7240 allows. Raises InvalidRequest.
    """
    allowed = f"0 to {HOLDS_MAX - 1}"
    hop = parse_number(query, HOP, allowed) or 0
    if hop >= HOLDS_MAX:
        raise InvalidRequest(f"{HOP} is out of range", parameter=HOP, allowed=allowed)
    most_s = math.ceil(HOLDS_MAX * limits.hold_s)
    wait_s = parse_number(query, "wait", "a whole number of seconds")
    if wait_s is not None:
        return WaitPreference(wait_s=min(wait_s, most_s), hop=hop)
    if prefer and (preference := _parse_prefer(prefer, limits, most_s)):
        return preference
    return WaitPreference(wait_s=default_s, hop=hop)


def _parse_prefer(prefer: str, limits: WaitLimits, most_s: int) -> WaitPreference | None:
    """Return the preference in a ``Prefer`` header. Malformed parts are ignored."""
    preferences: dict[str, str] = {}
    for name, value in map(_parse_part, prefer.split(",")):
        preferences.setdefault(name, value)
    respond_async = "respond-async" in preferences
    if not SECONDS.fullmatch(preferences.get("wait", "")):
        return WaitPreference(respond_async=True, from_header=True) if respond_async else None
    most_s = math.floor(limits.hold_s) if respond_async else most_s
    wait_s = min(int(preferences["wait"]), most_s)
    return WaitPreference(wait_s=wait_s, respond_async=respond_async, from_header=True)


def _parse_part(text: str) -> tuple[str, str]:
    """Return name and value of one preference (RFC 7240, section 2), without its parameters."""
    name, _, value = text.partition(";")[0].partition("=")
    return name.strip().lower(), value.strip().removeprefix('"').removesuffix('"')
