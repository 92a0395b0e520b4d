"""Checks that a test runs each section with code on the pages about tools in docs/how-to."""

from pathlib import Path

import pytest

from tests.programs.project import SECTIONS

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_test_runs_the_code_of_the_section(section: str) -> None:
    assert f'"{section}"' in TESTS
