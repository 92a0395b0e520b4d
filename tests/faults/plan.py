"""The plan of a campaign, which follows from its seed alone."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.faults.engine_kinds import ENGINE_KINDS
from tests.faults.host_kinds import HOST_KINDS
from tests.faults.kinds import Catalogue, Fault, Kind
from tests.faults.process_kinds import PROCESS_KINDS
from tests.faults.region_kinds import REGION_KINDS
from tests.faults.shortage_kinds import SHORTAGE_KINDS

PER_ROUND = 5
"""Faults of different parts that may be in one round."""

DELAY_S = (0.0, 2.0)


def all_kinds() -> dict[str, Kind]:
    """Return every kind by its name."""
    catalogue = Catalogue()
    for each in (PROCESS_KINDS, ENGINE_KINDS, REGION_KINDS, HOST_KINDS, SHORTAGE_KINDS):
        catalogue.merge(each.kinds)
    return catalogue.kinds


def faults(seed: int, kinds: Mapping[str, Kind]) -> Iterator[Fault]:
    """Yield faults forever. Each kind comes once before any comes twice."""
    chance = random.Random(f"faults {seed}")  # noqa: S311
    dealt: dict[str, int] = dict.fromkeys(kinds, 0)
    number = 0
    while True:
        deck = sorted(kinds)
        chance.shuffle(deck)
        for name in deck:
            number += 1
            kind = kinds[name]
            yield Fault(
                number=number,
                kind=name,
                target=_dealt(kind.targets, dealt[name], f"{seed} {name} targets"),
                moment=_dealt(kind.moments, dealt[name], f"{seed} {name} moments"),
                delay_s=chance.uniform(*DELAY_S),
                hold_s=chance.uniform(*kind.hold_s),
            )
            dealt[name] += 1


def _dealt(values: Sequence[str], turn: int, seed: str) -> str:
    """Return a value by chance, each once before any twice."""
    deck = list(values)
    random.Random(f"{seed} {turn // len(deck)}").shuffle(deck)  # noqa: S311
    return deck[turn % len(deck)]


def rounds(planned: Iterable[Fault], kinds: Mapping[str, Kind]) -> Iterator[list[Fault]]:
    """Yield the faults round by round: those in one round break different parts."""
    waiting: list[Fault] = list(planned)
    while waiting:
        together: list[Fault] = []
        for fault in tuple(waiting):
            if len(together) < PER_ROUND and _fits(fault, together, kinds):
                together.append(fault)
                waiting.remove(fault)
        yield together


def _fits(fault: Fault, together: Sequence[Fault], kinds: Mapping[str, Kind]) -> bool:
    if not together:
        return True
    if any(kinds[each.kind].alone for each in (fault, *together)):
        return False
    broken = frozenset[str]().union(*(kinds[each.kind].parts(each) for each in together))
    return not broken & kinds[fault.kind].parts(fault)
