"""``docs/hooks/hg-changegroup``, run by a real Mercurial after a push."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archiver.prewarm.hook import Hook, HookKind
from archiver.prewarm.push import Push, RefKind
from tests.parts.hgweb import HG_ENV, hg_binary
from tests.parts.scripted_server import Response, ScriptedServer

SCRIPT = Path(__file__).parents[2] / "docs" / "hooks" / "hg-changegroup"
SECRET = "the-secret-of-the-hook"  # noqa: S105 - only of this test


def hg(folder: Path, *words: str) -> str:
    environment = {**os.environ, **HG_ENV, "HG": hg_binary()}
    result = subprocess.run(
        [hg_binary(), "--cwd", str(folder), *words],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return result.stdout + result.stderr


@pytest.fixture
def pushed(tmp_path: Path, server: ScriptedServer) -> Path:
    """A clone with commits that are not pushed. Its origin has the hook."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    hg(tmp_path, "init", str(origin))
    command = f"{sys.executable} {SCRIPT} {server.url}/hooks/hg {secret} projects/ash"
    (origin / ".hg" / "hgrc").write_text(f"[hooks]\nchangegroup.archiver = {command}\n")
    hg(tmp_path, "clone", str(origin), str(clone))
    (clone / "a").write_text("a")
    hg(clone, "commit", "-A", "-m", "one")
    hg(clone, "branch", "stäble")
    hg(clone, "commit", "-m", "two")
    hg(clone, "update", "default")
    (clone / "b").write_text("b")
    hg(clone, "commit", "-A", "-m", "three")
    hg(clone, "bookmark", "next")
    return clone


def deliveries(server: ScriptedServer) -> list[Push | None]:
    """Return the pushes in the requests, which must all be signed."""
    hook = Hook(
        name="hg",
        kind=HookKind.STANDARD,
        source="hgmo",
        secrets=(SECRET,),
        find_repo=lambda name, _urls: name,
    )
    found = []
    for (target, headers), body in zip(server.requests, server.bodies, strict=True):
        assert target == "/hooks/hg"
        lowered = {name.lower(): value for name, value in headers.items()}
        assert hook.refusal(lowered, body) is None
        found.append(hook.read(lowered, body))
    return found


def node(clone: Path, rev: str) -> str:
    return hg(clone, "log", "-r", rev, "-T", "{node}")


def test_branch_and_bookmarks_of_each_new_head_are_announced(
    pushed: Path, server: ScriptedServer
) -> None:
    server.respond("/hooks/hg", Response(status=202))
    hg(pushed, "push", "--new-branch", "-r", "head()", "-B", "next")
    names = {(push.name, push.node) for push in deliveries(server) if push}
    default, stable = node(pushed, "default"), node(pushed, "stäble")
    assert names == {("default", default), ("next", default), ("stäble", stable)}
    assert {push.kind for push in deliveries(server) if push} == {RefKind.BRANCH}
    assert {push.repo for push in deliveries(server) if push} == {"projects/ash"}
    count = len(server.requests)
    (pushed / "b").write_text("c")
    hg(pushed, "commit", "-m", "four")
    hg(pushed, "push")
    (latest, *_) = deliveries(server)[count:]
    assert latest
    assert (latest.name, latest.node) == ("default", node(pushed, "default"))


def test_a_push_succeeds_although_archiver_refuses(pushed: Path, server: ScriptedServer) -> None:
    server.respond("/hooks/hg", Response(status=503))
    output = hg(pushed, "push", "--new-branch")
    assert "was not announced" in output
    assert node(pushed.parent / "origin", "default") == node(pushed, "default")
