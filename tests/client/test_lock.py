"""``archiver lock`` and ``archiver fetch``."""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from archiver import model
from archiver.client import lock_values
from archiver.client.lock_file import read_lock, write_lock
from tests.client.responses import problem
from tests.client.test_extraction import contents, member, tar
from tests.parts.commands import Run
from tests.parts.json_output import documents
from tests.parts.scripted_server import Response, ScriptedServer, ranged

COUNT = 50
NAMES = [f"repo{number:02}" for number in range(COUNT)]
FEW = NAMES[:10]


def node_of(name: str, commit: int = 0) -> str:
    return hashlib.sha1(f"{name} {commit}".encode(), usedforsecurity=False).hexdigest()


def content_of(name: str, commit: int = 0) -> bytes:
    return tar(member(f"{name}-x/file", f"{name} {commit}".encode() * 100), mode="w")


def serve(server: ScriptedServer, name: str, *, commit: int = 0, broken: bool = False) -> None:
    """Serve the archive of the default branch of hgmo/projects/NAME, which is at *commit*."""
    content = content_of(name, commit)
    node = node_of(name, commit)
    location = f"/bucket/{name}-{node[:12]}.tar"
    hit = Response(
        status=302,
        headers={
            "Location": server.url + location,
            "Archiver-SHA256": hashlib.sha256(content).hexdigest(),
            "Archiver-Size": str(len(content)),
            "Archiver-Node": node,
            "Archiver-Region": "us-west-2",
        },
    )
    for rev in ("default", node):
        server.respond(f"/archiver/hgmo/projects/{name}/{rev}", hit)
    server.respond(location, ranged(b"x" * len(content) if broken else content))


@pytest.fixture
def many(server: ScriptedServer) -> ScriptedServer:
    for name in NAMES:
        serve(server, name)
    return server


def lock(run: Run, server: ScriptedServer, *words: str, **env: str) -> Result:
    return run("lock", "deps.json", *words, "--server", server.url, **env)


def fetch(run: Run, server: ScriptedServer, *words: str) -> Result:
    return run("fetch", "deps.json", *words, "--server", server.url)


def archives(folder: Path) -> dict[str, dict[str, Any]]:
    locked: dict[str, dict[str, Any]] = json.loads((folder / "deps.json").read_text())["archives"]
    return locked


def add(run: Run, server: ScriptedServer, names: Sequence[str] = FEW) -> None:
    words = [f"hgmo/projects/{name}@default" for name in names]
    result = lock(run, server, *words, "--suffix", "tar")
    assert result.exit_code == 0, result.output


def test_fifty_archives_are_locked_fetched_broken_verified_and_upgraded(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    add(run, many, NAMES)
    assert archives(tmp_path)["repo00"] == {
        "source": "hgmo",
        "repo": "projects/repo00",
        "rev": "default",
        "suffix": "tar",
        "node": node_of("repo00"),
        "sha256": hashlib.sha256(content_of("repo00")).hexdigest(),
        "size": len(content_of("repo00")),
    }
    first = fetch(run, many)
    assert first.exit_code == 0, first.output
    assert "50 of 50 archives are there, 50 of them downloaded" in first.stderr
    for name in NAMES:
        assert (tmp_path / f"{name}.tar").read_bytes() == content_of(name)

    (tmp_path / "repo07.tar").write_bytes(b"broken")
    (tmp_path / "repo08.tar").unlink()
    many.requests.clear()
    again = fetch(run, many, "--json")
    assert again.exit_code == 0
    assert len(many.requests) == 4
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["name"] for line in lines if line["downloaded"]} == {"repo07", "repo08"}

    serve(many, "repo09", commit=1)
    assert lock(run, many).stderr == "50 archives, none changed\n"
    checked = lock(run, many, "--upgrade", "--check")
    assert (checked.exit_code, archives(tmp_path)["repo09"]["node"]) == (1, node_of("repo09"))
    upgraded = lock(run, many, "--upgrade")
    assert upgraded.stderr == (
        "~ repo09  hgmo/projects/repo09@default  "
        f"{node_of('repo09')[:12]} -> {node_of('repo09', 1)[:12]}\n"
    )
    assert fetch(run, many).exit_code == 0
    assert (tmp_path / "repo09.tar").read_bytes() == content_of("repo09", 1)


def test_a_locked_archive_is_not_resolved_again(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    add(run, many)
    many.requests.clear()
    before = (tmp_path / "deps.json").stat()
    assert lock(run, many).exit_code == 0
    assert not many.requests
    assert (tmp_path / "deps.json").stat().st_ino == before.st_ino


def test_other_bytes_of_the_same_node_are_marked(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    add(run, many)
    locked = json.loads((tmp_path / "deps.json").read_text())
    locked["archives"]["repo00"]["sha256"] = "0" * 64
    (tmp_path / "deps.json").write_text(json.dumps(locked))
    refused = fetch(run, many, "--only", "repo00")
    assert refused.exit_code == 5
    assert "the server offers the SHA-256" in refused.stderr
    upgraded = lock(run, many, "--upgrade", "--only", "repo00")
    assert upgraded.stderr.startswith("! repo00  ")


def test_one_failure_does_not_keep_the_others(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    add(run, many)
    serve(many, "repo03", broken=True)
    many.respond(f"/archiver/hgmo/projects/repo04/{node_of('repo04')}", problem(404, "unknown_rev"))
    result = fetch(run, many, "--json")
    assert result.exit_code == 1
    assert "8 of 10 archives are there" in result.stderr
    assert "repo04: unknown_rev: because of unknown_rev" in result.stderr
    failed = [line for line in documents(result.stdout) if "error" in line]
    assert {line["name"]: line["error"]["code"] for line in failed} == {
        "repo03": "wrong_bytes",
        "repo04": "unknown_rev",
    }
    assert fetch(run, many, "--only", "repo04").exit_code == 3
    (tmp_path / "deps.json").write_text(entry("gone"))
    refused = fetch(run, many)
    assert refused.exit_code == 2
    assert "gone is not locked: run `archiver lock deps.json`" in refused.stderr


def test_archives_are_extracted_where_the_file_says(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    named = {"source": "hgmo", "repo": "projects/repo00", "rev": "default", "suffix": "tar"}
    document = entry("zero", **named, extract="third_party/zero", strip=1)
    (tmp_path / "deps.json").write_text(document)
    assert lock(run, many).exit_code == 0
    assert fetch(run, many).exit_code == 0
    folder = tmp_path / "third_party" / "zero"
    assert contents(folder) == {"file": b"repo00 0" * 100}
    many.requests.clear()
    assert "0 of them downloaded" in fetch(run, many).stderr
    assert not many.requests
    serve(many, "repo00", commit=1)
    assert lock(run, many, "--upgrade").exit_code == 0
    assert fetch(run, many).exit_code == 0
    assert contents(folder) == {"file": b"repo00 1" * 100}
    (tmp_path / "third_party" / ".zero.locked").unlink()
    foreign = fetch(run, many)
    assert foreign.exit_code == 1
    assert "exists, and fetch did not bring it" in foreign.stderr


@pytest.mark.parametrize(
    ("name", "expected"),
    (
        ("bazel", 'urls = ["{url}"]'),
        ("nix", 'url = "{url}";'),
        ("pip", "zero @ {url}#sha256={sha256}"),
        ("cmake", 'FetchContent_Declare(zero URL "{url}" URL_HASH SHA256={sha256})'),
        ("sha256sums", "{sha256}  zero.tar"),
    ),
)
def test_other_tools_get_their_own_form(
    run: Run, many: ScriptedServer, name: str, expected: str
) -> None:
    words = ("zero=hgmo/projects/repo00@default", "--suffix", "tar", "--format", name)
    result = lock(run, many, *words)
    assert result.exit_code == 0, result.output
    url = f"{many.url}/get/hgmo/projects/repo00/{node_of('repo00')}.tar"
    sha256 = hashlib.sha256(content_of("repo00")).hexdigest()
    assert expected.format(url=url, sha256=sha256) in result.stdout


def test_sha256sum_accepts_what_was_fetched(run: Run, many: ScriptedServer, tmp_path: Path) -> None:
    add(run, many)
    assert fetch(run, many).exit_code == 0
    sums = lock(run, many, "--format", "sha256sums").stdout
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet"],  # noqa: S607
        input=sums,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def entry(name: str = "x", **changes: object) -> str:
    """Return a file with one entry. A change to None removes a key."""
    members = {"source": "a", "repo": "b", "rev": "c"} | changes
    kept = {key: value for key, value in members.items() if value is not None}
    return json.dumps({"version": 1, "archives": {name: kept}})


def test_flags_are_written_only_if_they_are_set(tmp_path: Path) -> None:
    """So that clients from before them read every other file."""
    path = tmp_path / "deps.json"
    path.write_text(entry(submodules=False, lfs=True))
    entries = read_lock(path)
    assert entries["x"].flags == ("lfs",)
    write_lock(path, entries)
    assert archives(tmp_path)["x"].keys() == {"source", "repo", "rev", "lfs"}


def two(one: Mapping[str, str], other: Mapping[str, str]) -> str:
    """Return a file with the entries a and b."""
    members = {"source": "a", "repo": "b", "rev": "c"}
    return json.dumps(
        {"version": 1, "archives": {"a": {**members, **one}, "b": {**members, **other}}}
    )


@pytest.mark.parametrize(
    "content",
    (
        "",
        "[]",
        "{",
        '{"version": 2}',
        '{"version": 1, "archives": []}',
        '{"version": 1, "archives": {"x": []}}',
        "[" * 100_000,
        entry("../x"),
        entry(rev=None),
        entry(rev=1),
        entry(more=1),
        entry(strip=True),
        entry(strip=-1),
        entry(file="/x"),
        entry(extract="a/../../x"),
        entry(sha256="0"),
        entry(node="HEAD"),
        entry(node="a" * 64 + "\n"),
        entry(sha256="a" * 40),
        entry(size=2**53),
        entry(size=float("nan")),
        entry(submodules=1),
        entry(lfs="1"),
        entry(lfs=[True]),
        entry(suffix=""),
        entry(suffix="tgz"),
        entry(suffix="x/../../OUT/f"),
        entry(source="a/b"),
        entry(source=".."),
        entry(repo="a/../b"),
        entry(repo="a//b"),
        entry(repo="a\\b"),
        entry(rev="a\n"),
        entry(rev="../x"),
        entry(rev="x" * 2000),
        entry(subdir="a/.."),
        entry(subdir="a\x1b[2J"),
        entry(subdir="\ud800"),
        entry(file="a\0b"),
        entry(file="\udcff"),
        entry(file="a\u202eb"),
        entry(file=".git/hooks/x"),
        entry(file="a/.GIT/x"),
        entry(file=".x.tar.locked"),
        entry(file="x.tar.part"),
        entry(extract=".x.part/y"),
        entry(extract=".x.0123456789ab"),
        entry(extract="."),
        entry(file="deps.json"),
        entry(file="DEPS.json/x"),
        two({"file": "x"}, {"file": "x"}),
        two({"file": "x"}, {"file": "./X"}),
        two({"extract": "x"}, {"file": "x/y"}),
        two({"extract": "a/\u00e9"}, {"extract": "a/e\u0301/b"}),
        two({"file": "b.tar.gz"}, {}),
        '{"version": 1, "archives": {}, "archives": {}}',
        '{"version": 1, "archives": {"x": {"rev": "a", "source": "a", "repo": "a", "rev": "b"}}}',
    ),
)
def test_a_malformed_file_is_refused_in_one_sentence(
    run: Run, server: ScriptedServer, tmp_path: Path, content: str
) -> None:
    (tmp_path / "deps.json").write_text(content)
    for result in (lock(run, server), fetch(run, server)):
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: deps.json")
        assert result.stderr.count("\n") == 1
    assert (tmp_path / "deps.json").read_text() == content


@pytest.mark.parametrize(
    "words",
    (
        ("hgmo",),
        ("hgmo/ash",),
        ("hgmo@x",),
        ("a=b=hgmo/ash@x",),
        ("..=hgmo/ash@x",),
        ("hgmo/ash@",),
        ("hgmo/a/../b@x",),
        ("hgmo/ash@\udcff",),
        ("hgmo/ash@x", "--suffix", "x/../y"),
        ("hgmo/ash@x", "--subdir", "../y"),
        ("ash=hgmo/ash@x", "ASH=hgmo/ash@x"),
    ),
)
def test_a_malformed_name_is_refused(
    run: Run, server: ScriptedServer, tmp_path: Path, words: Sequence[str]
) -> None:
    result = lock(run, server, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert not (tmp_path / "deps.json").exists()
    assert not server.requests


def test_the_client_knows_all_formats() -> None:
    assert lock_values.SUFFIXES == model.SUFFIXES


def test_a_fifo_is_no_lock_file(run: Run, server: ScriptedServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "deps.json")
    for result in (lock(run, server), fetch(run, server, "--timeout", "5")):
        assert result.exit_code == 2
        assert result.stderr == "Error: deps.json is not a file\n"


def test_a_lock_file_that_cannot_be_written_is_named(run: Run, many: ScriptedServer) -> None:
    words = ("lock", "no/deps.json", "hgmo/projects/repo00@default", "--server", many.url)
    result = run(*words)
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: no/deps.json: No such file or directory\n")


def test_an_interrupted_fetch_is_continued(run: Run, many: ScriptedServer, tmp_path: Path) -> None:
    add(run, many)
    target = f"/bucket/repo05-{node_of('repo05')[:12]}.tar"
    original = many.responses[target][0]

    def interrupt(_headers: Mapping[str, str]) -> Response:
        os.kill(os.getpid(), signal.SIGINT)
        return Response(status=503)

    many.respond(target, interrupt)
    interrupted = fetch(run, many)
    assert interrupted.exit_code == 130
    many.respond(target, original)
    assert fetch(run, many).exit_code == 0
    assert len([*tmp_path.glob("*.tar")]) == len(FEW)
    assert not [*tmp_path.glob("*.part")]
