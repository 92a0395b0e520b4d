"""Faults of hosts: the host is away, or answers like one of the cases in ``tests/parts``."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain

from tests.faults.kinds import Catalogue, Kind, Scene
from tests.faults.moments import RANDOM
from tests.parts.archive_faults import archive_faults
from tests.parts.fault_cases import Case
from tests.parts.http_faults import http_faults

PERSISTS_TOO_LONG = ("drips", "is-never-done", "silent", "lookup-is-silent", "nonsense-endless")
"""Cases that take many seconds for each attempt, and so only occur once for each archive."""

UNFIT = ("gzip-bomb", "too-", "zip-bomb", "endless")
"""Cases that need limits of a source, which would also limit what else the round builds."""

FAMILIES = {
    "http": "nonsense chunk chunks chunked trailers http length labelled a-content",
    "ends": "reset close large garbage another-answer half-an 100- 103-",
    "silences": "silent drips is-never-done",
    "statuses": "1 2 3 4 5 9",
    "redirects": "redirect",
    "lookups": "lookup",
    "wrong-types": "page nothing archive-of-type tar-bz2-for zip-for tar-gz-for tar-for gzipped",
    "damage": "damaged tar- a-byte an-apology zeros gzip-of zip-",
    "members": "member another-changeset link hard-link",
    "changes": "other-bytes",
}
"""The families of cases, by the beginnings of their names. The longest beginning decides."""


@cache
def families() -> dict[str, list[Case]]:
    """Return the cases of each family that a campaign can use."""
    beginnings = {start: name for name, all_ in FAMILIES.items() for start in all_.split()}
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in chain(http_faults(), archive_faults()):
        too_long = case.name.startswith(PERSISTS_TOO_LONG) and not case.name.endswith("-once")
        if too_long or case.name.startswith(UNFIT):
            continue
        fits = [start for start in beginnings if case.name.startswith(start)]
        found[beginnings[max(fits, key=len)]].append(case)
    return dict(found)


def case_of(kind: str, target: str) -> Case | None:
    """Return the case that a fault of this kind has the host play."""
    for case in families().get(kind.removeprefix("host-"), []):
        if case.name == target:
            return case
    return None


@contextmanager
def _play(scene: Scene) -> Iterator[str]:
    """The host plays the case from the first request on, which is an errand of the round."""
    yield scene.target


@contextmanager
def _take_down(scene: Scene) -> Iterator[str]:
    host = scene.fleet.host
    host.is_down = True
    host.cut()
    yield "every connection"
    host.is_down = False


@contextmanager
def _silence(scene: Scene) -> Iterator[str]:
    host = scene.fleet.host
    host.is_silent.set()
    yield "every new request"
    host.is_silent.clear()


@contextmanager
def _cut(scene: Scene) -> Iterator[str]:
    scene.fleet.host.cut()
    yield "every open connection"


HOST_KINDS = Catalogue()
_POINTS = ("acceptance", "fetch", "stream", RANDOM)

for _name, _begin in (("down", _take_down), ("silent", _silence), ("cut", _cut)):
    HOST_KINDS.add(Kind(name=f"host-{_name}", part="host", begin=_begin, moments=_POINTS))

for _family, _cases in families().items():
    HOST_KINDS.add(
        Kind(
            name=f"host-{_family}",
            part=f"host-{_family}",
            begin=_play,
            targets=tuple(case.name for case in _cases),
            hold_s=(0.0, 0.0),
            excuses=False,
        )
    )
