"""Plans of campaigns."""

from itertools import islice

from tests.faults.errands import ERRANDS
from tests.faults.host_kinds import case_of
from tests.faults.plan import PER_ROUND, all_kinds, faults, rounds

KINDS = all_kinds()


def test_a_seed_makes_one_plan() -> None:
    first = list(islice(faults(7, KINDS), 200))

    assert first == list(islice(faults(7, KINDS), 200))
    assert first != list(islice(faults(8, KINDS), 200))


def test_each_kind_comes_once_before_any_comes_twice() -> None:
    planned = list(islice(faults(1, KINDS), 2 * len(KINDS)))

    assert {fault.kind for fault in planned[: len(KINDS)]} == set(KINDS)
    assert {fault.kind for fault in planned[len(KINDS) :]} == set(KINDS)


def test_sixty_faults_contain_every_kind() -> None:
    assert len(KINDS) <= 60


def test_targets_and_moments_come_once_before_any_comes_twice() -> None:
    only = {"worker-killed": KINDS["worker-killed"]}
    moments = only["worker-killed"].moments

    planned = islice(faults(1, only), len(moments))

    assert sorted(fault.moment for fault in planned) == sorted(moments)


def test_the_faults_of_a_round_break_different_parts() -> None:
    planned = list(islice(faults(3, KINDS), 300))

    together = list(rounds(planned, KINDS))

    assert sorted(f.number for each in together for f in each) == [f.number for f in planned]
    for each in together:
        broken = [part for fault in each for part in KINDS[fault.kind].parts(fault)]
        assert len(broken) == len(set(broken))
        assert 1 <= len(each) <= PER_ROUND
        assert len(each) == 1 or not any(KINDS[fault.kind].alone for fault in each)


def test_every_kind_needs_errands_that_exist() -> None:
    assert {need for kind in KINDS.values() for need in kind.needs} <= set(ERRANDS)


def test_the_host_can_play_every_case_that_is_planned() -> None:
    for fault in islice(faults(1, KINDS), 300):
        plays = fault.kind.startswith("host-") and bool(fault.target)
        assert (case_of(fault.kind, fault.target) is not None) is plays
