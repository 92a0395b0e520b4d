"""The commands and the configuration in the README work as they stand."""

import re
from pathlib import Path

import pytest

from archiver.settings import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_first_commands_are_demo_and_test() -> None:
    first = _blocks("sh")[0].splitlines()

    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


def test_every_make_target_is_in_the_menu() -> None:
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    menu = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert {"demo", "test", "up"} <= targets <= menu


def test_the_configuration_precedes_the_commands_that_read_it() -> None:
    assert README.index("[server]") < README.index("archiver config check")


def test_the_configuration_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (written,) = _blocks("toml")
    path = tmp_path / "archiver.toml"
    path.write_text(written)
    monkeypatch.chdir(tmp_path)

    settings = load(path)

    assert settings.server.url == "https://archiver.example.org"
    assert len(settings.engine.servers) == 3
    assert list(settings.regions) == ["us-east-1", "us-west-2"]
    assert settings.sources["hgmo"].served.suffixes == ("zip",)
