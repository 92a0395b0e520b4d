"""A short campaign: sixty faults, all kinds among them, after which every law holds."""

import argparse
from pathlib import Path

import pytest

from tests.faults.__main__ import parse, run

FAULTS = 60


@pytest.mark.campaign
@pytest.mark.timeout(900)
def test_a_fleet_keeps_its_laws_through_sixty_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments: argparse.Namespace = parse([f"--faults={FAULTS}", "--seed=1"])

    with capsys.disabled():
        counts = run(arguments, tmp_path, print)

    assert counts.findings == []
    assert counts.faults == FAULTS
    assert counts.lost == counts.dead_links == counts.not_whole == 0
    assert counts.accepted > 0
