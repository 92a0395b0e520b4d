"""How far the clock of a server is ahead, by the Date of its response."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from archiver.storage.trial_bucket import lead_of

NOW = datetime(2026, 11, 28, 12, 0, 0, 500_000, tzinfo=UTC)
SOON = NOW + timedelta(milliseconds=100)


@pytest.mark.parametrize(
    ("date", "lead_s"),
    (
        ("Sat, 28 Nov 2026 12:00:00 GMT", 0),
        ("Sat, 28 Nov 2026 11:59:00 GMT", -59.5),
        ("Sat, 28 Nov 2026 13:10:00 +0100", 599.4),
        ("Sat, 28 Nov 2026 12:00:00 -0000", 0),  # of no zone, by RFC 5322
        ("", None),
        ("now", None),
        ("Mon, 01 Jan 2020 00:00:00 +99999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2300", None),
    ),
)
def test_the_lead_follows_from_a_valid_date_wherever_this_machine_is(
    date: str, lead_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    expected = None if lead_s is None else timedelta(seconds=lead_s)
    try:
        assert lead_of(date, NOW, SOON) == expected
    finally:
        monkeypatch.undo()
        time.tzset()
