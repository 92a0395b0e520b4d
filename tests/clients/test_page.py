"""Each section with code in docs/how-to about tools is run by a test."""

from pathlib import Path

import pytest

from tests.clients.project import SECTIONS

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_with_code_is_run(section: str) -> None:
    assert f'"{section}"' in TESTS
