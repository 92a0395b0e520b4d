"""Requests that have an archive built before a client wants it: deliveries and batches."""

import http
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from tests.faults.fleet_settings import BRANCH
from tests.parts.webhooks import signed
from tests.system.client import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A POST. A hook's secret is the token of the campaign."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def announcement(archive: str, *, secret: str) -> Order:
    """Return the delivery of a push, after which the archive with this path is built."""
    _, repo, node, _ = _parts(archive)
    push = {"repo": repo, "branch": BRANCH, "node": node}
    body = json.dumps(push).encode()
    return Order(
        path="/hooks/faults", body=body, headers=signed(body, secret=secret, delivery=node)
    )


def batch(archive: str) -> Order:
    """Return a batch of one request, for the archive with this path."""
    source, repo, node, suffix = _parts(archive)
    request = {"source": source, "repo": repo, "rev": node, "suffix": suffix}
    return Order(
        path="/archiver/tasks",
        body=json.dumps({"requests": [request]}).encode(),
        headers={"Content-Type": "application/json"},
    )


def task(answer: Answer) -> str:
    """Return the task that an answer names; empty if the order must be sent again."""
    if answer.status not in {http.HTTPStatus.OK, http.HTTPStatus.ACCEPTED}:
        return ""
    (result,) = answer.json.get("results") or answer.json["archives"]
    return str(result.get("task", "")) if result["outcome"] in BUILT else ""


BUILT = frozenset({"hit", "created", "joined"})


def _parts(archive: str) -> tuple[str, str, str, str]:
    """Return source, repo, node and suffix of a path such as ``Round.visit`` makes."""
    url = urlsplit(archive)
    _, _, source, *repo, node = url.path.split("/")
    return source, "/".join(repo), node, parse_qs(url.query)["suffix"][0]
