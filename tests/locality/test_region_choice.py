"""The region from which a client downloads."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.locality.region_choice import RegionChoice
from archiver.model import Region

EAST, WEST, EUROPE, ASIA = ALL = tuple(map(Region, ("east", "west", "europe", "asia")))
MARS = Region("mars")

NEARNESS = RegionChoice(regions=ALL, nearest={ASIA: (WEST, EAST), EUROPE: (EAST,), WEST: (ASIA,)})


def test_a_region_that_is_avoided_is_chosen_only_if_there_is_no_other() -> None:
    choice = RegionChoice(
        regions=ALL, nearest={ASIA: (WEST, EAST)}, avoids={EAST, ASIA}.__contains__
    )
    assert choice.choose(ALL, preferred=ASIA, own=None) == WEST
    assert choice.choose(ALL, preferred=EAST, own=EUROPE) == EUROPE
    assert choice.choose((EAST, ASIA), preferred=None, own=ASIA) == ASIA
    assert choice.choose((), preferred=EAST, own=None) is None


some_region = st.sampled_from((None, MARS, *ALL))
some_copies = st.lists(st.sampled_from((*ALL, MARS)), unique=True)


@pytest.mark.parametrize(
    ("having", "preferred", "own", "chosen"),
    (
        (ALL, WEST, ASIA, WEST),
        (ALL, None, ASIA, ASIA),
        (ALL, None, None, EAST),
        ((EAST, WEST, ASIA), EUROPE, ASIA, ASIA),
        ((EAST, WEST), EUROPE, ASIA, WEST),
        ((EAST, WEST), None, ASIA, WEST),
        ((EAST, EUROPE), None, ASIA, EAST),
        ((EAST, ASIA), WEST, None, ASIA),
        ((EUROPE, ASIA), None, EAST, EUROPE),
        ((WEST, EUROPE), EAST, None, WEST),
        ((WEST,), EAST, EUROPE, WEST),
    ),
)
def test_the_order_is_preferred_own_near_then_configured(
    having: Sequence[Region], preferred: Region | None, own: Region | None, chosen: Region
) -> None:
    assert NEARNESS.choose(having, preferred=preferred, own=own) == chosen


def test_an_unconfigured_region_is_ignored() -> None:
    assert NEARNESS.choose((MARS, ASIA, WEST), preferred=MARS, own=ASIA) == ASIA
    assert NEARNESS.choose((MARS, EUROPE, ASIA), preferred=WEST, own=MARS) == ASIA
    assert NEARNESS.choose((MARS,), preferred=MARS, own=MARS) is None


def test_without_regions_there_is_no_choice() -> None:
    assert RegionChoice(regions=(), nearest={}).choose(ALL, preferred=EAST, own=WEST) is None


@given(having=some_copies, preferred=some_region, own=some_region)
def test_the_choice_is_a_configured_region_with_a_copy(
    having: list[Region], preferred: Region | None, own: Region | None
) -> None:
    chosen = NEARNESS.choose(having, preferred=preferred, own=own)
    assert chosen in having if set(having) & set(ALL) else chosen is None
