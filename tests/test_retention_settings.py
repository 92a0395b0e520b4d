"""Settings of how long archives are kept."""

from pathlib import Path

import pytest

from archiver.jetstream.index import TRUSTED_FOR
from archiver.retention import Retention, RetentionRule
from archiver.settings import SettingsError, load, retention_warnings


def load_text(folder: Path, text: str) -> Retention:
    config = folder / "archiver.toml"
    config.write_text(text)
    return load(config).retention.policy


def test_everything_is_kept_by_default(tmp_path: Path) -> None:
    assert load_text(tmp_path, "").keeps_everything


def test_rules_are_read_in_their_order(tmp_path: Path) -> None:
    rules = "[[retention.rules]]\nrepos = ['a']\nkeep = true\n[[retention.rules]]\ndays = 3"
    assert load_text(tmp_path, f"[retention]\nbudget_bytes = 7\n{rules}") == Retention(
        rules=(RetentionRule(repos=("a",), keep=True), RetentionRule(days=3)), budget_bytes=7
    )


def test_rules_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVER_RETENTION__RULES", '[{"sources": ["x"], "budget_bytes": 1}]')
    assert load_text(tmp_path, "").rules == (RetentionRule(sources=("x",), budget_bytes=1),)


def test_a_misspelled_setting_of_a_rule_is_named(tmp_path: Path) -> None:
    rules = "[[retention.rules]]\nkeep = true\n[[retention.rules]]\nrepo = ['x']\nkeep = true"
    with pytest.raises(
        SettingsError, match=r"rules\.1\.repo: .* mean retention\.rules\.1\.repos\?"
    ):
        load_text(tmp_path, rules)


@pytest.mark.parametrize(
    "rule",
    (
        "",
        "keep = true\ndays = 3",
        "keep = false",
        "days = 0",
        "budget_bytes = 0",
        "repos = []\nkeep = true",
    ),
)
def test_a_rule_keeps_archives_or_limits_them(tmp_path: Path, rule: str) -> None:
    with pytest.raises(SettingsError, match=r"^retention\.rules\.0"):
        load_text(tmp_path, f"[[retention.rules]]\n{rule}")


def test_bytes_outlast_every_link_by_more_than_memory_is_trusted(tmp_path: Path) -> None:
    config = tmp_path / "archiver.toml"
    config.write_text("[server]\npresigned_ttl_s = 604800")
    settings = load(config)
    assert settings.expiry_grace >= settings.server.presigned_ttl + 2 * TRUSTED_FOR


@pytest.mark.parametrize(
    ("text", "warnings"),
    (
        ("", []),
        ("[retention]\ngc_s = 60", ["retention.gc_s has no effect, because nothing expires"]),
        (
            "[[retention.rules]]\nsources = ['hgmoo']\nkeep = true",
            ["rule 1 of retention.rules applies to no source"],
        ),
        (
            "[[retention.rules]]\ndays = 4\n[[retention.rules]]\nrepos = ['a']\nkeep = true",
            ["rule 1 of retention.rules applies always, so later rules never do"],
        ),
        ("[[retention.rules]]\nrepos = ['a']\ndays = 4\n[[retention.rules]]\nkeep = true", []),
    ),
)
def test_settings_without_effect_are_warned_of(
    tmp_path: Path, text: str, warnings: list[str]
) -> None:
    config = tmp_path / "archiver.toml"
    config.write_text(text)
    assert list(retention_warnings(load(config))) == warnings
