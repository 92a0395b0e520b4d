"""Reads the pushes in the bodies of webhooks. Their senders are known, their contents hostile.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#push
https://docs.gitlab.com/user/project/integrations/webhook_events/#push-events
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from archiver.errors import InvalidRequest
from archiver.model import Node, parse_node
from archiver.names import require_name
from archiver.prewarm.push import Push, RefKind

HEADS, TAGS = "refs/heads/", "refs/tags/"
FORM = b"payload="
"""How the body begins that GitHub and Gitea send with another content type than JSON."""

FORM_HINT = "the body is a form: set the content type application/json at the host"

P = TypeVar("P")

FindRepo = Callable[[str, tuple[str, ...]], str]
"""Returns the repo of a source by its full name and its URLs, as the host states them."""


class _Commit(msgspec.Struct):
    id: str = ""


class _Repository(msgspec.Struct):
    full_name: str
    clone_url: str = ""
    ssh_url: str = ""


class _ForgePush(msgspec.Struct):
    """A push on GitHub, Gitea and Forgejo. After the end of a branch, ``after`` is zeros."""

    ref: str
    after: str
    repository: _Repository
    head_commit: _Commit | None = None


class _Project(msgspec.Struct):
    path_with_namespace: str
    git_http_url: str = ""
    git_ssh_url: str = ""


class _GitlabPush(msgspec.Struct):
    """``checkout_sha`` is the commit, also of an annotated tag; null if the ref was deleted."""

    ref: str
    project: _Project
    checkout_sha: str | None = None


class _PlainPush(msgspec.Struct, forbid_unknown_fields=True):
    """Archiver's own form: one of ``branch`` and ``tag``."""

    repo: str
    node: str
    branch: str = ""
    tag: str = ""


def read_forge(body: bytes, find_repo: FindRepo) -> Push | None:
    """Return the push in a body of GitHub, Gitea or Forgejo; None if it names no commit.

    ``after`` of an annotated tag is the tag; ``head_commit`` is its commit. Raises InvalidRequest.
    """
    push = _decode(body, _ForgePush)
    if push.ref.startswith(TAGS):
        node = _existing(push.head_commit.id if push.head_commit else "")
    else:
        node = _existing(push.after)
    urls = (push.repository.clone_url, push.repository.ssh_url)
    return _of_ref(push.ref, node, find_repo(push.repository.full_name, urls))


def read_gitlab(body: bytes, find_repo: FindRepo) -> Push | None:
    """Return the push in a body of GitLab; None if it names no commit. Raises InvalidRequest."""
    push = _decode(body, _GitlabPush)
    urls = (push.project.git_http_url, push.project.git_ssh_url)
    repo = find_repo(push.project.path_with_namespace, urls)
    return _of_ref(push.ref, _existing(push.checkout_sha or ""), repo)


def is_form(body: bytes) -> bool:
    return body.startswith(FORM)


def refuse_form(body: bytes) -> None:
    """Raises InvalidRequest."""
    if is_form(body):
        raise InvalidRequest(FORM_HINT, parameter="body", allowed="application/json")


def read_plain(body: bytes) -> Push:
    """Return the push in a body of the plain form. Raises InvalidRequest."""
    push = _decode(body, _PlainPush)
    node = _existing(push.node)
    if node is None or bool(push.branch) == bool(push.tag):
        raise _malformed()
    kind = RefKind.TAG if push.tag else RefKind.BRANCH
    repo = require_name(push.repo, "repo")
    return Push(repo=repo, kind=kind, name=push.tag or push.branch, node=node)


def _of_ref(ref: str, node: Node | None, repo: str) -> Push | None:
    """Return the push to a branch or a tag; None for other refs, such as those of changes."""
    if node is None:
        return None
    for prefix, kind in ((HEADS, RefKind.BRANCH), (TAGS, RefKind.TAG)):
        if ref.startswith(prefix):
            return Push(repo=repo, kind=kind, name=ref.removeprefix(prefix), node=node)
    return None


def _existing(text: str) -> Node | None:
    """Return a full node in *text*; None for any other text, and for that of a deleted ref."""
    node = parse_node(text)
    return node if node and node.strip("0") else None


def _decode(body: bytes, kind: type[P]) -> P:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed() from None


def _malformed() -> InvalidRequest:
    allowed = "the JSON of a push in the form of the hook's kind"
    return InvalidRequest(f"the body must be {allowed}", parameter="body", allowed=allowed)
