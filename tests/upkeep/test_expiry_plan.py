"""Which archives expire: a calculation."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from archiver.model import Archive, Node, Region
from archiver.retention import Retention, RetentionRule
from archiver.upkeep.expiry_plan import Excess, ExpiryPlan, Reason

ONE, TWO = Region("one"), Region("two")
TODAY = date(2026, 11, 28)


def archive(name: str, *, source: str = "hgmo") -> Archive:
    return Archive(source=source, repo=name, node=Node("0" * 40), subdir="", suffix="zip")


class Planned:
    """A plan, to which archives are added with their days without a use."""

    def __init__(self, retention: Retention) -> None:
        self.plan = ExpiryPlan(retention=retention, regions=(ONE, TWO), today=TODAY)

    def add(
        self,
        name: str,
        days: int,
        sizes: Sequence[int] = (10, 10),
        *,
        pinned: bool = False,
        source: str = "hgmo",
    ) -> None:
        last_use = TODAY - timedelta(days=days)
        self.plan.add(archive(name, source=source), sizes=sizes, last_use=last_use, pinned=pinned)

    def expiries(self) -> list[tuple[str, Reason]]:
        return [(expiry.archive.repo, expiry.reason) for expiry in self.plan.expiries()]


def test_without_limits_everything_is_kept() -> None:
    assert Retention().keeps_everything
    planned = Planned(Retention())
    planned.add("old", 9999)
    assert planned.expiries() == []
    assert list(planned.plan.excesses()) == []


def test_archives_expire_after_more_than_the_days_without_a_use() -> None:
    planned = Planned(Retention(days=30))
    for days in (29, 30, 31, 400):
        planned.add(str(days), days)
    assert planned.expiries() == [("400", Reason.UNUSED), ("31", Reason.UNUSED)]


def test_pinned_kept_and_recent_archives_stay() -> None:
    keep = RetentionRule(repos=("releases/*",), keep=True)
    planned = Planned(Retention(rules=(keep,), days=1, budget_bytes=0))
    planned.add("pinned", 99, pinned=True)
    planned.add("releases/x", 99)
    planned.add("yesterday", 1)
    planned.add("today", 0)
    planned.add("tomorrow", -1)
    planned.add("old", 2)
    assert planned.expiries() == [("old", Reason.UNUSED)]
    assert list(planned.plan.excesses()) == [
        Excess(region=ONE, rule=None, size_bytes=50),
        Excess(region=TWO, rule=None, size_bytes=50),
    ]


def test_the_first_rule_that_applies_decides() -> None:
    rules = (
        RetentionRule(sources=("git",), repos=("try/*",), days=7),
        RetentionRule(repos=("try/*",), keep=True),
        RetentionRule(sources=("git",), budget_bytes=0),
    )
    planned = Planned(Retention(rules=rules, days=100))
    planned.add("try/a", 8, source="git")
    planned.add("try/b", 101)
    planned.add("c", 50, source="git")
    planned.add("d", 101)
    planned.add("e", 50)
    assert planned.expiries() == [
        ("d", Reason.UNUSED),
        ("try/a", Reason.UNUSED),
        ("c", Reason.BUDGET),
    ]


def test_the_least_recently_used_archives_make_room() -> None:
    planned = Planned(Retention(budget_bytes=25))
    for name, days in (("b", 5), ("a", 5), ("new", 2), ("old", 9)):
        planned.add(name, days)
    assert planned.expiries() == [("old", Reason.BUDGET), ("a", Reason.BUDGET)]
    assert list(planned.plan.excesses()) == []


def test_each_region_has_the_budget_for_itself() -> None:
    planned = Planned(Retention(budget_bytes=20))
    planned.add("nothing in two", 9, (10, 0))
    planned.add("old", 8, (0, 10))
    planned.add("new", 2, (10, 20))
    assert planned.expiries() == [("old", Reason.BUDGET)]


def test_the_budget_of_a_rule_counts_its_archives_only() -> None:
    rule = RetentionRule(repos=("try/*",), budget_bytes=10)
    planned = Planned(Retention(rules=(rule,), budget_bytes=30))
    for name, days in (("try/a", 3), ("try/b", 4), ("x", 5), ("y", 6), ("z", 0)):
        planned.add(name, days)
    assert planned.expiries() == [("try/b", Reason.BUDGET), ("y", Reason.BUDGET)]


def test_what_is_kept_exceeds_the_budget_of_its_rule() -> None:
    rule = RetentionRule(repos=("try/*",), budget_bytes=15)
    planned = Planned(Retention(rules=(rule,)))
    planned.add("try/a", 0)
    planned.add("try/b", 0, (10, 0))
    assert planned.expiries() == []
    assert list(planned.plan.excesses()) == [Excess(region=ONE, rule=1, size_bytes=5)]


@given(
    archives=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 50), st.integers(0, 50), st.booleans()),
        max_size=30,
    ),
    days=st.none() | st.integers(1, 9),
    budget=st.none() | st.integers(0, 500),
    rule_budget=st.none() | st.integers(0, 200),
)
def test_budgets_hold_and_nothing_expires_without_need(
    archives: list[tuple[int, int, int, bool]],
    days: int | None,
    budget: int | None,
    rule_budget: int | None,
) -> None:
    rules = [RetentionRule(repos=("*[02468]",), days=days, budget_bytes=rule_budget)]
    retention = Retention(rules=rules, days=days, budget_bytes=budget)
    planned = Planned(retention)
    ages = {}
    for number, (age, east, west, pinned) in enumerate(archives):
        planned.add(str(number), age, (east, west), pinned=pinned)
        ages[str(number)] = (age, pinned, (east, west))
    expiries = planned.expiries()
    gone = {name for name, _ in expiries}
    assert len(gone) == len(expiries)
    assert all(ages[name][0] > 1 and not ages[name][1] for name in gone)
    left = {name: each for name, each in ages.items() if name not in gone}
    movable = [name for name, (age, pinned, _) in left.items() if age > 1 and not pinned]
    for place in (0, 1):
        total = sum(sizes[place] for _, _, sizes in left.values())
        if budget is not None and total > budget:
            assert not any(left[name][2][place] for name in movable)
    for name, reason in expiries:
        if reason is Reason.BUDGET:  # it took room where there was too little
            assert any(ages[name][2])


def test_a_retention_rule_matches_source_and_repo() -> None:
    rule = RetentionRule(sources=("hg*",), repos=("a/*", "b"))
    assert rule.applies_to(archive("a/x/y"))
    assert rule.applies_to(archive("b"))
    assert not rule.applies_to(archive("c"))
    assert not rule.applies_to(replace(archive("b"), source="git"))
