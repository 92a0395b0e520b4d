"""docs/clients.md promises nothing that no test has tried."""

from pathlib import Path

import pytest

from tests.clients.project import sections

TESTS = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("section", sections())
def test_every_section_is_tried(section: str) -> None:
    assert f'"{section}"' in TESTS
