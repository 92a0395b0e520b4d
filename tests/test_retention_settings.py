"""Settings of how long archives are kept."""

from pathlib import Path

import pytest

from archiver.jetstream.index import TRUSTED_FOR
from archiver.retention import Retention, RetentionRule
from archiver.settings import SettingsError, load


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
    monkeypatch.setenv("ARCHIVER_RETENTION__RULES", '[{"sources": ["x"], "budget_bytes": 0}]')
    assert load_text(tmp_path, "").rules == (RetentionRule(sources=("x",), budget_bytes=0),)


def test_a_misspelled_setting_of_a_rule_is_named(tmp_path: Path) -> None:
    rules = "[[retention.rules]]\nkeep = true\n[[retention.rules]]\nrepo = ['x']\nkeep = true"
    with pytest.raises(
        SettingsError, match=r"rules\.1\.repo: .* mean retention\.rules\.1\.repos\?"
    ):
        load_text(tmp_path, rules)


@pytest.mark.parametrize("rule", ("", "keep = true\ndays = 3", "keep = false", "days = 0"))
def test_a_rule_keeps_archives_or_limits_them(tmp_path: Path, rule: str) -> None:
    with pytest.raises(SettingsError, match=r"^retention\.rules\.0"):
        load_text(tmp_path, f"[[retention.rules]]\n{rule}")


def test_bytes_outlast_every_link_by_more_than_memory_is_trusted(tmp_path: Path) -> None:
    config = tmp_path / "archiver.toml"
    config.write_text("[server]\npresigned_ttl_s = 604800")
    settings = load(config)
    assert settings.expiry_grace >= settings.server.presigned_ttl + 2 * TRUSTED_FOR
