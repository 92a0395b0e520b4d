"""How often a key may do something."""

import time
from datetime import timedelta

import pytest

from archiver.runtime.allowance import Allowance

LONG = timedelta(hours=1)


def test_each_key_has_its_own_uses() -> None:
    allowance = Allowance(most=2, within=LONG)
    assert [allowance.take(key) for key in "aabaab"] == [True, True, True, False, False, True]


@pytest.mark.parametrize(("besides", "granted"), ((0, 3), (1, 2), (3, 0), (7, 0)))
def test_what_else_the_key_has_counts_like_uses(besides: int, granted: int) -> None:
    allowance = Allowance(most=3, within=LONG)
    assert [allowance.take("a", besides=besides) for _ in range(5)].count(True) == granted


def test_a_use_is_forgotten_after_its_time() -> None:
    allowance = Allowance(most=1, within=timedelta(milliseconds=20))
    assert allowance.take("a")
    time.sleep(0.03)
    assert allowance.take("a")
