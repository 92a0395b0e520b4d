"""The settings of access."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from archiver.access.scopes import Scope
from archiver.access.tokens import create_token, hash_token
from archiver.settings import Settings, access_policy, access_warnings

HASH = hash_token(create_token())
TEMPLATE = "https://hg/{repo}/archive/{rev}.{suffix}/{subdir}"


def settings(**values: Any) -> Settings:  # noqa: ANN401 - any tables
    source = values.pop("source", {})
    values["sources"] = {"hgmo": {"url_template": TEMPLATE, **source}}
    return Settings(**values)


def anonymous_scope(**values: Any) -> Scope:  # noqa: ANN401 - any tables
    return access_policy(settings(**values)).sources["hgmo"].anonymous


def test_a_source_may_differ_from_the_others() -> None:
    assert anonymous_scope() is Scope.CREATE
    assert anonymous_scope(access={"anonymous": "none"}) is Scope.NONE
    read = {"anonymous": "read"}
    assert anonymous_scope(access={"anonymous": "none"}, source=read) is Scope.READ


@pytest.mark.parametrize(
    ("expires", "expected"),
    (
        ("2027-06-30", datetime(2027, 6, 30, tzinfo=UTC)),
        ("2027-06-30T12:00:00", datetime(2027, 6, 30, 12, tzinfo=UTC)),
        ("2027-06-30T12:00:00+02:00", datetime(2027, 6, 30, 10, tzinfo=UTC)),
        (None, None),
    ),
)
def test_a_time_of_expiry_without_a_zone_is_utc(
    expires: str | None, expected: datetime | None
) -> None:
    token = settings(tokens={"ci": {"hash": HASH, "expires": expires}}).tokens["ci"]
    assert token.grant.expires == expected


@pytest.mark.parametrize(
    "values",
    (
        {"tokens": {"ci": {"hash": create_token()}}},
        {"tokens": {"ci": {"hash": HASH.upper()}}},
        {"tokens": {"ci": {"hash": HASH}, "again": {"hash": HASH}}},
        {"tokens": {"Ci ": {"hash": HASH}}},
        {"tokens": {"ci": {"hash": HASH, "scopes": []}}},
        {"tokens": {"ci": {"hash": HASH, "scopes": ["write"]}}},
        {"access": {"anonymous": "admin"}},
        {"access": {"proxy_header": "Authorization"}},
        {"access": {"proxy_header": "User-Agent"}},
        {"access": {"proxy_header": "two words"}},
        {"tokens": {"ci": {"hash": HASH, "sources": [""]}}},
        {"tokens": {"ci": {"hash": HASH, "repos": ["a/[b"]}}},
        {"source": {"repos_denied": ["/secret"]}},
        {"source": {"repos_denied": ["secret/"]}},
        {"source": {"private": True, "anonymous": "read"}},
    ),
)
def test_wrong_settings_are_refused_without_their_values(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**values)


def test_the_check_warns_of_what_may_have_been_overlooked() -> None:
    server: dict[str, Any] = {"public_url": "https://archiver.example"}
    old = {"old": {"hash": HASH, "expires": "2020-01-01"}}
    found = list(
        access_warnings(
            settings(
                server=server,
                access={"proxy_header": "X-User"},
                tokens=old,
            )
        )
    )
    assert [warning.split()[0] for warning in found] == [
        "access.anonymous",
        "access.proxy_header",
        "tokens.old",
    ]
    server = {**server, "trusted_proxies": ["0.0.0.0/0"]}
    regions = {"one": {"bucket": "one", "endpoint": "https://archiver.example:9000"}}
    (everybody, nothing, shared) = access_warnings(
        settings(
            server=server,
            regions=regions,
            access={"proxy_header": "X-User", "anonymous": "read"},
            tokens={"ci": {"hash": HASH, "sources": ["hgmoo"]}},
        )
    )
    assert "every client name itself" in everybody
    assert "tokens.ci covers no source" in nothing
    assert "regions.one has the host name" in shared
    private = list(access_warnings(settings(tokens=old, source={"private": True})))
    assert [warning.split()[0] for warning in private] == ["tokens.old", "sources.hgmo"]
    assert not list(access_warnings(settings()))
    decided = settings(server=server, access={"anonymous": "create"})
    assert not list(access_warnings(decided))
