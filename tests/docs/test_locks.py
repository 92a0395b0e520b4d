"""requirements/*.txt lock the dependencies of pyproject.toml by hash, and name no index."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT_OUT = {"zipapp": {"rich"}}  # which only draws
NAME = re.compile(r"[A-Za-z0-9._-]+")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_dependency_is_locked_by_its_hashes(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text())
    locked = {entry.partition("==")[0]: entry for entry in entries if "==" in entry}
    asked = {NAME.match(each)[0].lower() for each in PROJECT["dependencies"]}  # type: ignore[index]
    asked -= LEFT_OUT.get(lock.stem, set())

    assert asked <= locked.keys()
    assert all("--hash=sha256:" in entry for entry in locked.values())
    assert not re.search(r"https?://|index-url", lock.read_text())
