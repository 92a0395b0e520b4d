"""The page of a campaign."""

from pathlib import Path

from tests.faults.counts import Counts
from tests.faults.plan import all_kinds
from tests.faults.report import Report


def _report(counts: Counts) -> Report:
    return Report(counts=counts, seed=7, kinds=all_kinds(), took_s=61.0)


def _counts() -> Counts:
    counts = Counts(faults=3, rounds=2, accepted=5, settle_s=[1.0, 2.0], memory_mb=[80.0, 90.0])
    counts.fetches.update({1: 4, 2: 1})
    return counts


def test_the_counts_replace_those_of_the_last_campaign(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- campaign -->\nold\n<!-- end of campaign -->\nafter\n")

    _report(_counts()).write(page)
    _report(_counts()).write(page)

    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("Seed 7: 3 faults in 2 rounds, 1 min.") == 1
    assert "| clients whose task was accepted | 5 |" in text
    assert "| 2 | 1 |" in text
    assert "No law was broken." in text


def test_what_was_found_is_on_the_page() -> None:
    counts = _counts()
    counts.find(4, "a task was lost", (11, 12))

    lines = list(_report(counts).lines())

    assert "| 4 | 11, 12 | a task was lost |" in lines
    assert "No law was broken." not in lines
