"""Who a caller is, and what it may do."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from archiver.access.access import ANONYMOUS, Access, Principal
from archiver.access.patterns import RepoFilter
from archiver.access.policy import Policy, SourcePolicy
from archiver.access.scopes import Scope
from archiver.access.tokens import Grant, create_token, hash_token
from archiver.errors import Forbidden, Unauthenticated, UnknownRepo, UnknownSource

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)

CI, ADMIN, OLD, PART = create_token(), create_token(), create_token(), create_token()

SECRET = SourcePolicy(anonymous=Scope.CREATE, private=True)
"""A private source ignores its ``anonymous``."""


def policy(anonymous: Scope = Scope.CREATE) -> Policy:
    grants = {
        "ci": Grant(scope=Scope.CREATE),
        "admin": Grant(scope=Scope.ADMIN),
        "old": Grant(scope=Scope.ADMIN, expires=NOW),
        "part": Grant(scope=Scope.CREATE, sources=["sec*"], repos=["team/*"]),
    }
    tokens = {"ci": CI, "admin": ADMIN, "old": OLD, "part": PART}
    return Policy(
        sources={"open": SourcePolicy(anonymous=anonymous), "secret": SECRET},
        grants=grants,
        names={hash_token(token): name for name, token in tokens.items()},
        proxy_header=b"x-user",
        proxy_grant=Grant(scope=Scope.READ, sources=["open"]),
    )


def access(anonymous: Scope = Scope.CREATE) -> Access:
    return Access(policy(anonymous), now=lambda: NOW)


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


def basic(user_info: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Basic " + base64.b64encode(user_info.encode()))]


@pytest.mark.parametrize(
    "headers", (bearer(CI), basic(f"anyone:{CI}"), basic(f":{CI}"), bearer(f" {CI}  "))
)
def test_a_token_is_a_bearer_token_or_the_password_of_any_user(
    headers: list[tuple[bytes, bytes]],
) -> None:
    assert access().authenticate(headers, from_proxy=False) == "token:ci"


@pytest.mark.parametrize(
    "headers",
    (
        bearer(create_token()),
        bearer(CI[:-1]),
        bearer(OLD),
        bearer(""),
        bearer("\xff" * 5000),
        basic(CI),
        basic(f"{CI}:"),
        basic(f"{CI}:wrong"),
        [(b"authorization", b"Basic ???")],
        [(b"authorization", b"Basic /////w==")],
        [(b"authorization", b"Digest username=x")],
        [(b"authorization", b"")],
        [*bearer(CI), *bearer(CI)],
        [*bearer(create_token()), (b"x-user", b"anna")],
    ),
)
def test_wrong_credentials_are_refused_and_not_anonymous(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(Unauthenticated) as raised:
        access().authenticate(headers, from_proxy=True)
    assert CI not in raised.value.message


def test_without_tokens_credentials_mean_nothing() -> None:
    nobody = Access(Policy(sources={}))
    assert nobody.authenticate(bearer(CI), from_proxy=True) == ANONYMOUS


def test_only_a_trusted_proxy_may_name_a_user() -> None:
    headers = [(b"x-user", b"anna@example.org")]
    assert access().authenticate(headers, from_proxy=False) == ANONYMOUS
    assert access().authenticate(headers, from_proxy=True) == "user:anna@example.org"
    assert access().authenticate([], from_proxy=True) == ANONYMOUS


@pytest.mark.parametrize("name", (b"", b" ", b"a\nb", b"\xc3\xa4", b"a" * 256))
def test_a_strange_name_of_a_user_is_refused(name: bytes) -> None:
    with pytest.raises(Unauthenticated):
        access().authenticate([(b"x-user", name)], from_proxy=True)


def test_a_user_cannot_pass_as_a_token() -> None:
    user = access().authenticate([(b"x-user", b"token:admin")], from_proxy=True)
    assert access().scope(user, "open") is Scope.CREATE
    assert access().scope(user, "secret") is Scope.NONE


@pytest.mark.parametrize(
    ("caller", "scopes"),
    (
        ("", {"open": Scope.READ, "secret": Scope.NONE, "nowhere": Scope.NONE}),
        ("token:ci", {"open": Scope.CREATE, "secret": Scope.CREATE, "nowhere": Scope.NONE}),
        ("token:admin", {"open": Scope.ADMIN, "secret": Scope.ADMIN, "nowhere": Scope.NONE}),
        ("token:old", {"open": Scope.NONE, "secret": Scope.NONE, "nowhere": Scope.NONE}),
        ("token:part", {"open": Scope.READ, "secret": Scope.CREATE, "nowhere": Scope.NONE}),
        ("token:removed", {"open": Scope.NONE, "secret": Scope.NONE, "nowhere": Scope.NONE}),
        ("user:anna", {"open": Scope.READ, "secret": Scope.NONE, "nowhere": Scope.NONE}),
    ),
)
def test_a_caller_has_its_own_scope_and_that_of_everybody(
    caller: str, scopes: dict[str, Scope]
) -> None:
    found = {name: access(Scope.READ).scope(Principal(caller), name) for name in scopes}
    assert found == scopes


def test_a_token_covers_only_the_repos_that_match_its_patterns() -> None:
    part = Access.of_token("part")
    assert access().may_create(part, "secret", "team/a/b")
    assert not access().may_read(part, "secret", "other/a")
    with pytest.raises(UnknownRepo):
        access().require_repo(part, "secret", "other/a")


def test_a_hidden_source_is_answered_like_one_that_does_not_exist() -> None:
    part = access(Scope.NONE)
    for caller in (ANONYMOUS, Access.of_token("old"), Principal("user:anna")):
        messages = []
        for source in ("secret", "absent"):
            with pytest.raises((Unauthenticated, UnknownSource)) as raised:
                part.require_source(caller, source)
            messages.append((type(raised.value), raised.value.message.replace(source, "")))
        assert messages[0] == messages[1]


def test_callers_without_credentials_are_asked_for_some() -> None:
    with pytest.raises(Unauthenticated):
        access().require_source(ANONYMOUS, "secret")
    with pytest.raises(UnknownSource):
        Access(Policy(sources={"secret": SECRET})).require_source(ANONYMOUS, "secret")
    with pytest.raises(Unauthenticated):
        access(Scope.NONE).require_scope(ANONYMOUS, Scope.READ)
    access(Scope.NONE).require_scope(Access.of_token("ci"), Scope.READ)
    assert isinstance(access().create_refusal(ANONYMOUS), Unauthenticated)
    assert isinstance(access().create_refusal(Access.of_token("ci")), Forbidden)


def test_the_metrics_of_private_sources_are_for_administrators() -> None:
    Access(Policy(sources={"open": SourcePolicy()})).require_metrics(ANONYMOUS)
    access().require_metrics(Access.of_token("admin"))
    with pytest.raises(Forbidden):
        access().require_metrics(Access.of_token("ci"))
    with pytest.raises(Unauthenticated):
        access().require_metrics(ANONYMOUS)


def test_denied_repos_do_not_exist_for_anybody() -> None:
    source = SourcePolicy(repos=RepoFilter(allowed=["a/*"], denied=["a/secret"]))
    rules = Policy(sources={"git": source}, grants={"admin": Grant(scope=Scope.ADMIN)})
    for repo in ("a/secret", "A/Secret.git", "a/secret/.git", "a/secret/.GIT/x", "b/other"):
        for caller in (ANONYMOUS, Access.of_token("admin")):
            assert Access(rules).scope(caller, "git", repo) is Scope.NONE
    assert Access(rules).may_create(ANONYMOUS, "git", "a/public")


def test_a_new_policy_applies_at_once_to_known_callers() -> None:
    applied = access()
    caller = applied.authenticate(bearer(CI), from_proxy=False)
    changes: list[int] = []
    applied.changes.add(lambda: changes.append(1))
    applied.replace(Policy(sources={"open": SourcePolicy(), "secret": SECRET}))
    assert applied.scope(caller, "secret") is Scope.NONE
    assert changes == [1]


def test_a_token_expires_by_itself() -> None:
    clock = [NOW - timedelta(seconds=1)]
    applied = Access(policy(), now=lambda: clock[0])
    caller = applied.authenticate(bearer(OLD), from_proxy=False)
    assert applied.scope(caller, "secret") is Scope.ADMIN
    clock[0] = NOW
    assert applied.scope(caller, "secret") is Scope.NONE


def test_metrics_stay_closed_after_a_private_source_is_removed() -> None:
    applied = access()
    applied.replace(Policy(sources={"open": SourcePolicy()}, grants=policy().grants))
    applied.require_metrics(Access.of_token("admin"))
    with pytest.raises(Unauthenticated):
        applied.require_metrics(ANONYMOUS)


def test_a_part_of_the_settings_opens_nothing() -> None:
    """A file that was cut off often says less: that a source is private, or what it denies."""
    whole = Policy(
        sources={
            "secret": SECRET,
            "closed": SourcePolicy(anonymous=Scope.READ, repos=RepoFilter(denied=["a/*"])),
        },
        grants={"part": Grant(scope=Scope.READ, sources=["secret"], repos=["team/*"], expires=NOW)},
        names={hash_token(PART): "part"},
    )
    cut = Policy(
        sources={"secret": SourcePolicy(), "closed": SourcePolicy(), "new": SourcePolicy()},
        grants={"part": Grant(scope=Scope.ADMIN)},
        names={hash_token(PART): "part"},
        proxy_header=b"x-user",
        proxy_grant=Grant(scope=Scope.ADMIN),
    )
    assert whole.narrowed_to(cut) == whole
    assert whole.narrowed_to(whole) == whole
    emptied = Access(whole.narrowed_to(Policy(sources={})), now=lambda: NOW)
    for caller in (ANONYMOUS, Access.of_token("part")):
        assert [emptied.scope(caller, name) for name in whole.sources] == [Scope.NONE, Scope.NONE]


def test_a_new_token_and_a_narrower_one_apply_at_once() -> None:
    before = Policy(
        sources={"open": SourcePolicy()},
        grants={"ci": Grant(scope=Scope.ADMIN)},
        names={hash_token(CI): "ci"},
    )
    after = Policy(
        sources={"open": SourcePolicy(anonymous=Scope.READ, repos=RepoFilter(denied=["a"]))},
        grants={"ci": Grant(scope=Scope.READ, repos=["b"]), "new": Grant(scope=Scope.ADMIN)},
        names={hash_token(CI): "ci", hash_token(PART): "new"},
    )
    assert before.narrowed_to(after) == after
