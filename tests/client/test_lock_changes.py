"""What ``archiver lock`` adds, changes and removes, and what it says about that."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.client.responses import problem
from tests.client.test_lock import add, archives, entry, fetch, lock, many, node_of, serve
from tests.parts.commands import Run
from tests.parts.json_output import documents
from tests.parts.scripted_server import Response, ScriptedServer

__all__ = ["many"]

ZERO = "hgmo/projects/repo00@default"
NODE = node_of("repo00")
PATH = "/archiver/hgmo/projects/repo00/default"
NOWHERE = "hgmo/projects/nowhere@default"


@pytest.fixture(autouse=True)
def nowhere(server: ScriptedServer) -> None:
    server.respond("/archiver/hgmo/projects/nowhere/default", problem(404, "unknown_repo"))


@pytest.mark.parametrize(
    ("options", "kept", "shown"),
    (
        ((), {"subdir": "src", "suffix": "zip"}, f"rev default -> {NODE}\n"),
        (("--suffix", "tar"), {"subdir": "src", "suffix": "tar"}, "suffix zip -> tar\n"),
        (("--subdir", ""), {"suffix": "zip"}, "subdir src -> (none)"),
        (("--subdir", "doc"), {"subdir": "doc", "suffix": "zip"}, "subdir src -> doc"),
    ),
)
def test_options_that_are_not_given_keep_what_the_entry_has(
    run: Run,
    many: ScriptedServer,
    tmp_path: Path,
    options: Sequence[str],
    kept: dict[str, str],
    shown: str,
) -> None:
    lock(run, many, f"ash={ZERO}", "--subdir", "src", "--suffix", "zip")
    changed = lock(run, many, f"ash=hgmo/projects/repo00@{NODE}", *options)
    assert changed.exit_code == 0, changed.output
    found = archives(tmp_path)["ash"]
    assert {key: found[key] for key in found.keys() & {"subdir", "suffix"}} == kept
    assert shown in changed.stderr
    assert changed.stderr.startswith("~ ash  ")


@pytest.mark.parametrize(
    ("options", "kept", "shown"),
    (
        ((), {"submodules": True, "lfs": True}, "[submodules, lfs]"),
        (("--no-lfs",), {"submodules": True}, "lfs yes -> (none)"),
        (("--no-submodules", "--no-lfs"), {}, "submodules yes -> (none), lfs yes -> (none)"),
    ),
)
def test_flags_that_are_not_given_stay(
    run: Run,
    many: ScriptedServer,
    tmp_path: Path,
    options: Sequence[str],
    kept: dict[str, bool],
    shown: str,
) -> None:
    added = lock(run, many, f"ash={ZERO}", "--submodules", "--lfs")
    assert added.stderr.startswith(f"+ ash  {ZERO} [submodules, lfs]  ")
    changed = lock(run, many, f"ash=hgmo/projects/repo00@{NODE}", *options)
    assert changed.exit_code == 0, changed.output
    found = archives(tmp_path)["ash"]
    assert {key: found[key] for key in found.keys() & {"submodules", "lfs"}} == kept
    assert shown in changed.stderr
    asked = [parse_qs(urlsplit(path).query) for path, _ in many.requests]
    assert {name for query in asked[-1:] for name in query} == {"suffix", *kept}


def test_an_archive_with_a_flag_that_is_new_is_locked_again(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    lock(run, many, ZERO)
    many.requests.clear()
    changed = lock(run, many, ZERO, "--lfs")
    assert len(many.requests) == 1
    assert "~ repo00  " in changed.stderr
    assert "lfs (none) -> yes" in changed.stderr
    assert archives(tmp_path)["repo00"]["lfs"] is True
    assert "none changed" in lock(run, many, ZERO, "--lfs").stderr


def test_options_without_an_added_archive_are_refused(run: Run, many: ScriptedServer) -> None:
    add(run, many)
    for flag in ("--submodules", "--no-submodules", "--lfs", "--no-lfs"):
        assert "no archive is added" in lock(run, many, flag).stderr
    for option in ("--subdir", "--suffix"):
        refused = lock(run, many, option, "zip")
        assert refused.exit_code == 2
        assert "no archive is added" in refused.stderr


@pytest.mark.parametrize("other", ("hgmo/projects/repo00@v2", "git/repo00@main"))
def test_added_archives_of_one_name_are_refused(
    run: Run, many: ScriptedServer, tmp_path: Path, other: str
) -> None:
    refused = lock(run, many, ZERO, other)
    assert refused.exit_code == 2
    assert "several of the added archives are named repo00" in refused.stderr
    assert f"Hint: Give each a name of its own, as in NAME={other}" in refused.stderr
    assert not (tmp_path / "deps.json").exists()


@pytest.mark.parametrize("name", ("../x", "x/y", "", "x y", "_x"))
def test_a_name_that_cannot_be_one_is_refused(
    run: Run, many: ScriptedServer, tmp_path: Path, name: str
) -> None:
    refused = lock(run, many, f"{name}={ZERO}")
    assert refused.exit_code == 2
    assert f"Error: '{name}' is no name of an archive" in refused.stderr
    assert not (tmp_path / "deps.json").exists()


def test_an_added_archive_that_cannot_be_located_is_not_written(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    failed = lock(run, many, f"a={NOWHERE}", f"b={ZERO}")
    assert failed.exit_code == 3
    assert archives(tmp_path).keys() == {"b"}
    assert "+ b  " in failed.stderr
    assert "a: unknown_repo" in failed.stderr
    before = archives(tmp_path)
    assert lock(run, many, f"b={NOWHERE}").exit_code == 3
    assert archives(tmp_path) == before
    assert lock(run, many, "--check").exit_code == 0
    assert lock(run, many, "--upgrade").exit_code == 0


def test_no_file_is_made_for_nothing(run: Run, many: ScriptedServer, tmp_path: Path) -> None:
    assert lock(run, many, NOWHERE).exit_code == 3
    assert not (tmp_path / "deps.json").exists()


def test_an_added_archive_is_locked_whatever_only_says(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    add(run, many)
    many.requests.clear()
    assert lock(run, many, f"x={ZERO}", "--upgrade", "--only", "repo01").exit_code == 0
    assert archives(tmp_path)["x"]["node"] == NODE
    assert len(many.requests) == 2


def test_archives_are_removed(run: Run, many: ScriptedServer, tmp_path: Path) -> None:
    add(run, many)
    words = ("--remove", "repo03", "--remove", "repo04")
    assert lock(run, many, *words, "--check").exit_code == 1
    removed = lock(run, many, *words)
    assert removed.exit_code == 0, removed.output
    assert removed.stderr == "".join(
        f"- {name}  hgmo/projects/{name}@default  {node_of(name)[:12]}\n"
        for name in ("repo03", "repo04")
    )
    assert len(archives(tmp_path)) == 8
    again = lock(run, many, *words)
    assert again.exit_code == 2
    assert "the file has no archive repo03" in again.stderr
    contradiction = lock(run, many, "--remove", "repo00", ZERO)
    assert contradiction.exit_code == 2
    assert "repo00 is added and removed" in contradiction.stderr


@pytest.mark.parametrize("words", ((), ("--upgrade", "--check"), ("--remove", "x")))
def test_a_mistyped_file_is_no_empty_one(
    run: Run, many: ScriptedServer, tmp_path: Path, words: Sequence[str]
) -> None:
    refused = run("lock", "typo.json", *words, "--server", many.url)
    assert refused.exit_code == 2
    assert "Error: typo.json does not exist\nHint: " in refused.stderr
    assert not (tmp_path / "typo.json").exists()


def test_it_says_that_nothing_changed(run: Run, many: ScriptedServer) -> None:
    add(run, many)
    assert lock(run, many).stderr == "10 archives, none changed\n"
    assert lock(run, many, "--quiet").stderr == ""


def test_each_failure_is_a_line_of_json(run: Run, many: ScriptedServer) -> None:
    many.respond("/archiver/hgmo/projects/busy/default", problem(503, "engine_full"))
    result = lock(run, many, f"a={NOWHERE}", ZERO, "hgmo/projects/busy@default", "--json")
    assert result.exit_code == 1
    *failed, summary = documents(result.stdout)
    assert {each["name"]: each["error"]["code"] for each in failed} == {
        "a": "unknown_repo",
        "busy": "engine_full",
    }
    assert (summary["archives"], summary["locked"]) == (1, 1)


def test_changes_are_objects(run: Run, many: ScriptedServer, tmp_path: Path) -> None:
    add(run, many)
    locked = json.loads((tmp_path / "deps.json").read_text())
    for name in ("repo02", "repo05"):
        del locked["archives"][name]["size"]
    locked["archives"]["repo02"]["sha256"] = "0" * 64
    del locked["archives"]["repo03"]["node"]
    (tmp_path / "deps.json").write_text(json.dumps(locked))
    serve(many, "repo01", commit=1)
    words = (f"new={ZERO}", "--suffix", "tar", "--upgrade", "--remove", "repo04", "--json")
    before = archives(tmp_path)
    changed = lock(run, many, f"repo00=hgmo/projects/repo00@{NODE}", *words)
    (document,) = documents(changed.stdout)
    after = archives(tmp_path)
    assert {each["name"]: each["change"] for each in document["changes"]} == {
        "new": "added",
        "repo00": "changed",
        "repo01": "moved",
        "repo02": "other_bytes",
        "repo03": "locked",
        "repo04": "removed",
        "repo05": "changed",
    }
    for each in document["changes"]:
        assert each["from"] == before.get(each["name"])
        assert each["to"] == after.get(each["name"])
    signs = "".join(line[0] for line in changed.stderr.splitlines())
    assert signs == "+~~!~-~"


def test_another_format_of_a_commit_is_no_warning(run: Run, many: ScriptedServer) -> None:
    """Its bytes differ, as they should."""
    add(run, many, ["repo00"])
    hit = many.responses[PATH][0]
    assert isinstance(hit, Response)
    headers = {**hit.headers, "Archiver-SHA256": "1" * 64}
    many.respond(PATH, replace(hit, headers=headers))
    changed = lock(run, many, ZERO, "--suffix", "zip")
    assert changed.stderr == f"~ repo00  {ZERO}  {NODE[:12]}, suffix tar -> zip\n"


def test_other_tools_get_all_archives_or_none(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    named = {"source": "hgmo", "repo": "projects/nowhere", "rev": "default"}
    (tmp_path / "deps.json").write_text(entry("gone", **named))
    failed = lock(run, many, ZERO, "--format", "bazel")
    assert (failed.exit_code, failed.stdout) == (3, "")
    assert "gone: unknown_repo" in failed.stderr
    some = lock(run, many, "--only", "repo00", "--format", "bazel")
    assert some.exit_code == 0
    assert "repo00" in some.stdout


def test_sha256sums_leave_out_what_is_extracted(
    run: Run, many: ScriptedServer, tmp_path: Path
) -> None:
    named = {"source": "hgmo", "repo": "projects/repo00", "rev": "default", "suffix": "tar"}
    (tmp_path / "deps.json").write_text(entry("zero", **named, extract="there"))
    add(run, many, ["repo01"])
    assert fetch(run, many).exit_code == 0
    result = lock(run, many, "--format", "sha256sums", "--quiet")
    (line,) = result.stdout.splitlines()
    assert line.endswith("  repo01.tar")
    assert result.stderr == "zero is left out, since it is extracted\n"
