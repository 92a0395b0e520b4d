"""``archiver token``."""

import tomllib
from typing import Any

from archiver.access.tokens import hash_token
from archiver.settings import Settings, access_policy
from tests.parts.commands import Run

TEMPLATE = "https://hg/{repo}/archive/{rev}.{suffix}/{subdir}"
SOURCES: dict[str, Any] = {"sources": {"hgmo": {"url_template": TEMPLATE}}}


def test_a_new_token_is_accepted_with_the_printed_settings(run: Run) -> None:
    words = ("--scope", "admin", "--source", "hg*", "--repo", "a/*", "--expires", "2099-01-02")
    result = run("token", "create", "ci", *words)
    assert result.exit_code == 0, result.output
    token = result.stdout.strip()
    start = result.stderr.index("[tokens.ci]")
    printed = tomllib.loads(result.stderr[start:].partition("\n\n")[0])
    policy = access_policy(Settings(**SOURCES, **printed))
    grant = policy.grants[policy.names[hash_token(token)]]
    assert (grant.scope.label, grant.sources, grant.repos) == ("admin", ("hg*",), ("a/*",))
    assert grant.expires
    assert grant.expires.isoformat() == "2099-01-02T00:00:00+00:00"


def test_the_token_is_on_standard_output_alone(run: Run) -> None:
    result = run("token", "create", "ci")
    assert result.stdout.strip() not in result.stderr
    assert result.stdout.count("\n") == 1


def test_a_name_that_settings_cannot_have_is_refused(run: Run) -> None:
    result = run("token", "create", "Not a name")
    assert result.exit_code == 2
    assert "not a valid name" in result.output
