"""``POST /hooks/{name}``: signed deliveries of hosts, and what they cause."""

import hashlib
import hmac
import json
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from structlog.testing import capture_logs

from archiver.access.access import Access
from archiver.access.patterns import RepoFilter
from archiver.access.policy import Policy, SourcePolicy
from archiver.prewarm.hook import BODY_MAX_BYTES, Hook, HookKind
from archiver.prewarm.rules import PrewarmRule
from archiver.settings import SourceSettings
from archiver.tasks import Urgency
from archiver.wiring.prewarm import repo_finder
from tests.memory_world import ASH, World
from tests.web.client import CONFIG, Client, ClientResponse, client

SECRET = "correct horse battery staple".replace(" ", "-")
NEXT_SECRET = "whsec_" + b64encode(b"the next secret, of 32 bytes....").decode()
SECRETS = (SECRET, NEXT_SECRET)
SOURCE = SourceSettings(kind="git", url_template="https://git.example/{repo}.git")

RULES = (
    PrewarmRule(
        name="ash",
        source="hgmo",
        repos=("projects/*",),
        branches=("default", "release/*"),
        tags=("V_*",),
        subdirs=("", "testing"),
        suffixes=("tar.gz", "zip"),
    ),
    PrewarmRule(name="again", source="hgmo", repos=("*",), branches=("default",)),
    PrewarmRule(name="other", source="other", repos=("*",), branches=("*",)),
)


def hook(name: str, kind: HookKind) -> Hook:
    return Hook(name=name, kind=kind, source="hgmo", secrets=SECRETS, find_repo=repo_finder(SOURCE))


HOOKS = {kind.value: hook(kind.value, kind) for kind in HookKind}
POLICY = Policy(sources={"hgmo": SourcePolicy(repos=RepoFilter(denied=["projects/secret"]))})


@pytest.fixture
def web() -> Iterator[Client]:
    config = replace(CONFIG, hooks=HOOKS, prewarm_rules=RULES)
    with client(World(), config=config, access=Access(POLICY)) as web:
        yield web


def hex_digest(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard_headers(
    body: bytes, *, key: bytes = SECRET.encode(), at: float | None = None, id_: str = "msg_1"
) -> dict[str, str]:
    sent_at = str(int(time.time() if at is None else at))
    signed = f"{id_}.{sent_at}.".encode() + body
    digest = b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {
        "webhook-id": id_,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{digest}",
    }


def forge_body(node: str, **changes: object) -> bytes:
    push = {
        "ref": "refs/heads/default",
        "before": "0" * 40,
        "after": node,
        "head_commit": {"id": node, "message": "x"},
        "repository": {"id": 1, "full_name": ASH, "clone_url": f"https://git.example/{ASH}.git"},
        "commits": [{"id": node}] * 20,
    }
    return json.dumps(push | changes).encode()


def gitlab_body(node: str | None, **changes: object) -> bytes:
    push = {
        "object_kind": "push",
        "ref": "refs/heads/default",
        "checkout_sha": node,
        "project": {"path_with_namespace": ASH, "git_http_url": f"https://git.example/{ASH}.git"},
    }
    return json.dumps(push | changes).encode()


def plain_body(node: str, **changes: object) -> bytes:
    push = {"repo": ASH, "branch": "default", "node": node}
    return json.dumps({k: v for k, v in (push | changes).items() if v is not None}).encode()


def send(web: Client, kind: str, body: bytes, headers: Mapping[str, str]) -> ClientResponse:
    return web.post(f"/hooks/{kind}", body, **{"content-type": "application/json", **headers})


def deliver(web: Client, kind: str, body: bytes) -> ClientResponse:
    """Send *body* as a host of this kind does."""
    match kind:
        case "github":
            headers = {
                "x-github-event": "push",
                "x-hub-signature-256": f"sha256={hex_digest(body)}",
            }
        case "gitea":
            headers = {"x-gitea-event": "push", "x-gitea-signature": hex_digest(body)}
        case "gitlab":
            headers = {"x-gitlab-event": "Push Hook", "x-gitlab-token": SECRET}
        case _:
            headers = standard_headers(body)
    return send(web, kind, body, headers)


def a_push(web: Client, kind: str) -> bytes:
    bodies = {"gitlab": gitlab_body, "standard": plain_body}
    return bodies.get(kind, forge_body)(web.world.node)


def built(web: Client) -> set[tuple[str, str]]:
    """Return subdir and suffix of each task."""
    archives = [task.archive for task in web.world.engine.tasks.values()]
    return {(archive.subdir, archive.suffix) for archive in archives}


WHOLE_RULE = {("", "tar.gz"), ("", "zip"), ("testing", "tar.gz"), ("testing", "zip")}


@pytest.mark.parametrize("kind", HookKind)
def test_a_push_has_the_archives_of_all_matching_rules_built(web: Client, kind: str) -> None:
    response = deliver(web, kind, a_push(web, kind))

    assert response.status == 202, response.body
    assert response.json["outcome"] == "accepted"
    assert {each["outcome"] for each in response.json["archives"]} == {"created"}
    assert built(web) == WHOLE_RULE
    assert {*web.world.engine.urgencies.values()} == {Urgency.ANNOUNCED}
    assert {*web.world.engine.clients.values()} == {f"hook:{kind}"}
    web.work()
    assert web.get(f"/archiver/hgmo/{ASH}/default").status == 302
    assert web.get(f"/archiver/hgmo/{ASH}/{web.world.node}?suffix=zip&subdir=testing").status == 302


@pytest.mark.parametrize("kind", HookKind)
def test_a_delivery_that_is_sent_again_has_no_further_effect(web: Client, kind: str) -> None:
    body = a_push(web, kind)
    first = deliver(web, kind, body)
    again = deliver(web, kind, body)
    assert {each["outcome"] for each in again.json["archives"]} == {"joined"}
    web.work()
    stored = deliver(web, kind, body)
    assert (first.status, again.status, stored.status) == (202, 202, 200)
    assert {each["outcome"] for each in stored.json["archives"]} == {"hit"}


@pytest.mark.parametrize("kind", HookKind)
def test_no_host_is_asked_before_the_answer(web: Client, kind: str) -> None:
    web.world.source.outage = None
    asked = dict(web.world.source.asked)
    deliver(web, kind, a_push(web, kind))
    assert dict(web.world.source.asked) == asked


BAD_HEADERS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("github", {}),
    ("github", {"x-hub-signature-256": ""}),
    ("github", {"x-hub-signature-256": "sha256="}),
    ("github", {"x-hub-signature-256": "sha256=" + "0" * 64}),
    ("github", {"x-hub-signature": "sha1=" + "0" * 40}),
    ("github", {"x-gitea-signature": "OURS"}),
    ("gitea", {"x-gitea-signature": "0" * 64}),
    ("gitea", {"x-forgejo-signature": "0" * 64, "x-gitea-signature": "OURS"}),
    ("gitlab", {}),
    ("gitlab", {"x-gitlab-token": SECRET[:-1]}),
    ("gitlab", {"x-gitlab-token": f"{SECRET},{SECRET}"}),
    ("gitlab", {"x-gitlab-token": SECRET, "webhook-signature": "v1,AAAA"}),
    ("standard", {}),
    ("standard", {"webhook-id": "1", "webhook-timestamp": "1", "webhook-signature": "v1,AAAA"}),
    ("nothing", {"x-gitlab-token": SECRET}),
)


@pytest.mark.parametrize(("kind", "headers"), BAD_HEADERS)
def test_a_delivery_without_a_valid_signature_has_no_effect(
    web: Client, kind: str, headers: Mapping[str, str]
) -> None:
    body = forge_body(web.world.node) if kind == "nothing" else a_push(web, kind)
    events = {"x-github-event": "push", "x-gitea-event": "push", "x-gitlab-event": "Push Hook"}
    ours = {name: value.replace("OURS", hex_digest(body)) for name, value in headers.items()}

    with capture_logs() as lines:
        response = send(web, kind, body, {**events, **ours})

    assert (response.status, response.code) == (403, "bad_signature")
    assert web.world.engine.tasks == {}
    (line,) = (line for line in lines if line["event"] == "request.finished")
    assert line["refused"]
    assert SECRET not in str(lines)


def test_an_unknown_hook_cannot_be_told_from_a_wrong_signature(web: Client) -> None:
    body = forge_body(web.world.node)
    one, other = (send(web, kind, body, {}).json for kind in ("github", "nothing"))
    assert one | {"request_id": ""} == other | {"request_id": ""}


@pytest.mark.parametrize("kind", ("github", "gitea", "standard"))
def test_a_changed_body_is_not_accepted(web: Client, kind: str) -> None:
    """The token of GitLab does not depend on the body. Its signatures are standard ones."""
    body = a_push(web, kind)
    headers = {
        "github": {"x-hub-signature-256": f"sha256={hex_digest(body)}"},
        "gitea": {"x-forgejo-signature": hex_digest(body)},
        "standard": standard_headers(body),
    }[kind]
    assert send(web, kind, body + b" ", headers).status == 403


@pytest.mark.parametrize("offset_s", (-299, 0, 299))
def test_a_signature_of_about_now_is_accepted(web: Client, offset_s: float) -> None:
    body = plain_body(web.world.node)
    headers = standard_headers(body, at=time.time() + offset_s)
    assert send(web, "standard", body, headers).status == 202


@pytest.mark.parametrize("offset_s", (-310, 310, -1e9))
def test_a_signature_of_another_time_is_stale(web: Client, offset_s: float) -> None:
    body = plain_body(web.world.node)
    headers = standard_headers(body, at=time.time() + offset_s)
    assert send(web, "standard", body, headers).code == "bad_signature"


@pytest.mark.parametrize("sent_at", ("now", "1e9", "-5", "9" * 4000, "²", ""))
def test_a_signed_time_that_is_no_number_is_stale(web: Client, sent_at: str) -> None:
    body = plain_body(web.world.node)
    signed = f"1.{sent_at}.".encode("latin-1") + body
    digest = b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{digest}",
    }
    assert send(web, "standard", body, headers).code == "bad_signature"


@pytest.mark.parametrize("kind", ("standard", "gitlab"))
def test_either_of_two_secrets_and_signatures_is_enough(web: Client, kind: str) -> None:
    """While a secret is replaced. The second one is in the form of Standard Webhooks."""
    body = a_push(web, kind)
    headers = standard_headers(body, key=b"the next secret, of 32 bytes....")
    headers["webhook-signature"] = f"v1a,xyz v1,AAAA {headers['webhook-signature']}"
    response = send(web, kind, body, {**headers, "x-gitlab-event": "Push Hook"})
    assert response.status == 202, response.body


def test_a_forge_may_use_the_next_secret(web: Client) -> None:
    body = a_push(web, "github")
    signature = f"sha256={hex_digest(body, NEXT_SECRET)}"
    headers = {"x-github-event": "push", "x-hub-signature-256": signature}
    assert send(web, "github", body, headers).status == 202


@pytest.mark.parametrize(
    "changes",
    (
        {"ref": "refs/heads/feature"},
        {"ref": "refs/heads/release"},
        {"ref": "refs/tags/W_1"},
        {"ref": "refs/pull/1/head"},
        {"ref": "default"},
        {"after": "0" * 40},
        {"after": "c0ffee"},
        {"after": "1" * 64},
        {"ref": "refs/tags/V_1", "head_commit": None},
        {"repository": {"full_name": "integration/x"}, "ref": "refs/heads/release/1"},
        {"repository": {"full_name": "projects/secret"}},
    ),
)
def test_a_push_that_no_rule_wants_is_ignored(web: Client, changes: dict[str, object]) -> None:
    response = deliver(web, "github", forge_body(web.world.node, **changes))
    assert (response.status, response.json["outcome"]) == (200, "ignored")
    assert response.json["reason"]
    assert web.world.engine.tasks == {}


@pytest.mark.parametrize(
    ("kind", "headers"),
    (
        ("github", {"x-github-event": "ping"}),
        ("github", {}),
        ("gitea", {"x-gitea-event": "issues"}),
        ("gitea", {"x-forgejo-event": "create", "x-gitea-event": "push"}),
        ("gitlab", {"x-gitlab-event": "Pipeline Hook"}),
    ),
)
def test_other_events_are_ignored(web: Client, kind: str, headers: Mapping[str, str]) -> None:
    body = b'{"zen": "Keep it logically awesome."}'
    signed = {
        "x-hub-signature-256": f"sha256={hex_digest(body)}",
        "x-gitea-signature": hex_digest(body),
        "x-gitlab-token": SECRET,
    }
    response = send(web, kind, body, {**signed, **headers})
    assert (response.status, response.json["outcome"]) == (200, "ignored")
    (event, *_) = headers.values() or [""]
    shown = f'the event "{event}"' if event else "the event of the delivery"
    assert response.json["reason"] == f"{shown} builds no archive; only a push does"


@pytest.mark.parametrize("event", ("x" * 41, "<b>", "ping; see https://evil.example", "p\u00efng"))
def test_an_event_that_is_no_name_is_not_repeated(web: Client, event: str) -> None:
    body = b"{}"
    signature = f"sha256={hex_digest(body)}"
    headers = {"x-github-event": event, "x-hub-signature-256": signature}
    reason = send(web, "github", body, headers).json["reason"]
    assert reason == "the event of the delivery builds no archive; only a push does"


def test_the_commit_of_an_annotated_tag_is_that_of_the_push(web: Client) -> None:
    body = forge_body("a" * 40, ref="refs/tags/V_2", head_commit={"id": web.world.node})
    assert deliver(web, "github", body).status == 202
    nodes = {task.archive.node for task in web.world.engine.tasks.values()}
    assert nodes == {web.world.node}


def test_a_tag_on_gitlab_has_the_archives_of_its_commit(web: Client) -> None:
    body = gitlab_body(web.world.node, ref="refs/tags/V_2")
    headers = {"x-gitlab-event": "Tag Push Hook", "x-gitlab-token": SECRET}
    assert send(web, "gitlab", body, headers).status == 202


def test_the_repo_is_found_by_its_url_before_its_name(web: Client) -> None:
    repository = {"full_name": "mirror/x", "ssh_url": f"git@git.example:{ASH}.git"}
    assert deliver(web, "github", forge_body(web.world.node, repository=repository)).status == 202
    assert {task.archive.repo for task in web.world.engine.tasks.values()} == {ASH}


@pytest.mark.parametrize(
    ("kind", "body"),
    (
        ("github", b""),
        ("github", b"payload=%7B%7D"),
        ("github", b'{"ref": 1}'),
        ("github", b"[" * 100_000),
        ("github", b"\xff"),
        ("github", forge_body("a" * 40, repository={"full_name": "../x"})),
        ("github", forge_body("a" * 40, repository={"full_name": "a\0b"})),
        ("gitlab", b'{"object_kind": "push"}'),
        ("standard", plain_body("a" * 40, branch=None)),
        ("standard", plain_body("a" * 40, tag="x")),
        ("standard", plain_body("0" * 40)),
        ("standard", plain_body("a" * 12)),
        ("standard", plain_body("a" * 40, more=1)),
        ("standard", plain_body("a" * 40, repo="a//b")),
    ),
)
def test_a_malformed_body_is_refused(web: Client, kind: str, body: bytes) -> None:
    response = deliver(web, kind, body)
    assert (response.status, response.code) == (400, "invalid_request")
    assert web.world.engine.tasks == {}


def test_a_body_that_is_too_large_is_not_read(web: Client) -> None:
    piece = b" " * (BODY_MAX_BYTES // 2)
    assert web.post("/hooks/github", piece, piece, b" ").code == "body_too_large"


def test_a_large_body_is_verified_and_read(web: Client) -> None:
    body = forge_body(web.world.node, commits=[{"id": "f" * 40, "message": "x" * 1000}] * 2000)
    assert deliver(web, "github", body).status == 202


@pytest.mark.parametrize(
    ("fault", "code"), (("down", "engine_unavailable"), ("full", "engine_full"))
)
def test_a_sender_learns_that_its_delivery_has_no_effect(
    web: Client, fault: str, code: str
) -> None:
    setattr(web.world.engine, fault, True)
    response = deliver(web, "github", a_push(web, "github"))
    assert (response.status, response.code) == (503, code)
    setattr(web.world.engine, fault, False)
    assert deliver(web, "github", a_push(web, "github")).status == 202


def test_buckets_that_do_not_answer_delay_no_delivery(web: Client) -> None:
    web.world.storage.down.update(web.world.storage.regions)
    assert deliver(web, "github", a_push(web, "github")).status == 202


def test_other_methods_are_not_allowed(web: Client) -> None:
    response = web.get("/hooks/github")
    assert (response.status, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("is_stored", (False, True))
def test_the_sender_does_not_learn_whether_submodules_can_be_read(*, is_stored: bool) -> None:
    rule = replace(RULES[1], submodules=True)
    world = World()
    world.source.completes = True
    config = replace(CONFIG, hooks=HOOKS, prewarm_rules=(rule,))
    with client(world, config=config, access=Access(POLICY)) as web:
        if is_stored:
            deliver(web, "github", a_push(web, "github"))
            web.work()
        response = deliver(web, "github", a_push(web, "github"))
    assert response.status == 202
    assert [each["outcome"] for each in response.json["archives"]] == [None]


def test_the_log_names_what_was_pushed(web: Client) -> None:
    with capture_logs() as lines:
        deliver(web, "github", a_push(web, "github"))
    (line,) = (dict[str, Any](line) for line in lines if line["event"] == "hook.received")
    assert (line["hook"], line["repo"], line["ref"], line["archives"]) == (
        "github",
        ASH,
        "default",
        4,
    )


FORM = b"payload=%7B%22ref%22%3A%22refs%2Fheads%2Fmain%22%7D"


@pytest.mark.parametrize("kind", ("github", "gitea"))
def test_a_form_is_refused_with_what_to_set_at_the_host(web: Client, kind: str) -> None:
    response = deliver(web, kind, FORM)
    assert (response.status, response.code) == (400, "invalid_request")
    assert "set the content type application/json at the host" in response.json["detail"]


def test_a_ping_in_a_form_is_refused_too(web: Client) -> None:
    signature = f"sha256={hex_digest(FORM)}"
    headers = {"x-github-event": "ping", "x-hub-signature-256": signature}
    response = send(web, "github", FORM, headers)
    assert (response.status, response.code) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ("gitea", "nowhere"))
def test_a_form_whose_json_is_signed_is_refused_with_what_to_set_at_the_host(
    web: Client, kind: str
) -> None:
    signature = hex_digest(unquote(FORM.decode()).removeprefix("payload=").encode())
    headers = {"x-gitea-event": "push", "x-gitea-signature": signature}
    response = send(web, kind, FORM, headers)
    assert (response.status, response.code) == (403, "bad_signature")
    assert "set the content type application/json at the host" in response.json["detail"]
