"""The readers of ``lock --format`` get each entry as it is, however hostile it looks."""

import ast
import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from packaging.requirements import Requirement
from pip._internal.models.link import Link
from pip._internal.req.constructors import install_req_from_line

from archiver.cli.lock_formats import FORMATS
from archiver.client.failures import InvalidUsage
from archiver.client.lock_file import Entry, read_lock

NODE = "42bf" * 10
CONTENT = b"the bytes"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TEXT = "${x}$ENV{HOME}$<1:y>@z@;#&'\"%41 (é)\t"[:-1]
SERVER = 'http://127.0.0.1:1/a"b${c}$ENV{HOME};d\\e'
"""``is_url`` accepts it."""


def read(folder: Path, **members: str | bool) -> dict[str, Entry]:
    """Return the entries of a file with a hostile one."""
    entry = {"source": TEXT.replace("/", ""), "repo": TEXT, "rev": TEXT, "subdir": TEXT}
    locked = {**entry, "suffix": "tar", "node": NODE, "sha256": SHA256, **members}
    path = folder / "deps.json"
    path.write_text(json.dumps({"version": 1, "archives": {"x.y-z": locked}}))
    return dict(read_lock(path))


def written(entries: dict[str, Entry], name: str) -> str:
    return "".join(f"{line}\n" for line in FORMATS[name](SERVER, entries))


def require_same(url: str, subdir: str = TEXT) -> None:
    """Require that a URL names the hostile entry, at the server."""
    parts = urlsplit(url)
    _, _, _, source, repo, file = parts.path.split("/")
    assert (parts.scheme, parts.netloc, parts.fragment) == ("http", "127.0.0.1:1", "")
    assert (unquote(source), unquote(repo), file) == (TEXT, TEXT, f"{NODE}.tar")
    assert parse_qs(parts.query, strict_parsing=bool(subdir)) == (
        {"subdir": [subdir]} if subdir else {}
    )


def test_bazel_reads_it(tmp_path: Path) -> None:
    """Starlark is a subset of Python's grammar."""
    load, rule = ast.parse(written(read(tmp_path), "bazel")).body
    assert isinstance(load, ast.Expr)
    assert isinstance(rule, ast.Expr)
    assert isinstance(rule.value, ast.Call)
    members = {each.arg: ast.literal_eval(each.value) for each in rule.value.keywords}
    assert (members["name"], members["sha256"]) == ("x.y-z", SHA256)
    require_same(members["urls"][0])


def read_with_pip(line: str) -> Link:
    """Return what pip 23 reads from a line of requirements, with its own parser."""
    parsed = install_req_from_line(line)
    assert parsed.name == "x.y-z"
    assert parsed.link
    return parsed.link


@pytest.mark.parametrize("subdir", ("", "python/ash", "/a+b/c@1,2=3!~/"))
def test_pip_reads_it(tmp_path: Path, subdir: str) -> None:
    (line,) = written(read(tmp_path, subdir=subdir), "pip").splitlines()
    assert Requirement(line).name == "x.y-z"
    link = read_with_pip(line)
    assert (link.hash_name, link.hash) == ("sha256", SHA256)
    assert link.subdirectory_fragment == (subdir.strip("/") or None)
    require_same(link.url_without_fragment, subdir)


@pytest.mark.parametrize("subdir", ("a b", "é", "a&b", "a#b", "a%41", TEXT))
def test_a_subdir_that_pip_cannot_read_is_refused(tmp_path: Path, subdir: str) -> None:
    with pytest.raises(InvalidUsage, match="cannot read its subdir"):
        written(read(tmp_path, subdir=subdir), "pip")


def run(words: Sequence[str], folder: Path) -> str:
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.mark.programs
def test_nix_reads_it(tmp_path: Path) -> None:
    (tmp_path / "deps.nix").write_text(written(read(tmp_path), "nix"))
    expression = "import ./deps.nix { fetchurl = arguments: arguments; }"
    words = ("nix-instantiate", "--eval", "--strict", "--json", "--expr", expression)
    found = json.loads(run(words, tmp_path))["x.y-z"]
    require_same(found["url"])


@pytest.mark.programs
def test_cmake_reads_it(tmp_path: Path) -> None:
    lines = written(read(tmp_path), "cmake").splitlines()
    (tmp_path / "deps.cmake").write_text(
        "function(FetchContent_Declare name)\n"
        '  foreach(each ${ARGV})\n    message("${each}")\n  endforeach()\nendfunction()\n'
        + "\n".join(lines[1:])
    )
    result = subprocess.run(
        ["cmake", "-P", "deps.cmake"],  # noqa: S607
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    name, _, url, _, digest = result.stderr.splitlines()
    assert (lines[0], name) == ("include(FetchContent)", "x.y-z")
    assert digest == f"SHA256={SHA256}"
    require_same(url)


@pytest.mark.parametrize("file", ("a\\b", "\\", "-", " *x", "a/é ;", "#", TEXT))
def test_sha256sum_reads_it(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(CONTENT)
    sums = written(read(tmp_path, file=file), "sha256sums")
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet"],  # noqa: S607
        input=sums,
        cwd=tmp_path,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ("bazel", "nix", "pip", "cmake"))
@pytest.mark.parametrize(
    ("flags", "query"),
    (
        ({}, "?subdir=a/b"),
        ({"lfs": True}, "?subdir=a/b&lfs=1"),
        ({"submodules": True, "lfs": True}, "?subdir=a/b&submodules=1&lfs=1"),
        ({"submodules": False}, "?subdir=a/b"),
        ({"submodules": True, "subdir": ""}, "?submodules=1"),
    ),
)
def test_urls_of_complete_archives_have_their_flags(
    tmp_path: Path, name: str, flags: dict[str, bool | str], query: str
) -> None:
    text = written(read(tmp_path, **{"subdir": "a/b", **flags}), name)
    file = re.search(rf'/{NODE}\.tar([^"# ]*)', text)
    assert file
    assert file[1] == query


def test_pip_reads_flags(tmp_path: Path) -> None:
    (line,) = written(read(tmp_path, subdir="a", submodules=True, lfs=True), "pip").splitlines()
    link = read_with_pip(line)
    assert (link.hash, link.subdirectory_fragment) == (SHA256, "a")
    assert parse_qs(urlsplit(link.url_without_fragment).query) == {
        "subdir": ["a"],
        "submodules": ["1"],
        "lfs": ["1"],
    }


@pytest.mark.parametrize("name", ("bazel", "nix", "pip", "cmake"))
def test_urls_have_no_character_that_means_something_to_a_tool(tmp_path: Path, name: str) -> None:
    text = written(read(tmp_path, **({"subdir": "a+b@c=d"} if name == "pip" else {})), name)
    (url,) = [word for word in text.replace('"', " ").split() if word.startswith("http:")]
    if name == "pip":
        url = url.replace(f"#subdirectory=a+b@c=d&sha256={SHA256}", "")
    assert not set(url) & set("\"'\\${}<>;#@ ()\t")


def test_a_name_that_pip_does_not_accept_is_refused(tmp_path: Path) -> None:
    entries = {"x-": next(iter(read(tmp_path).values()))}
    with pytest.raises(InvalidUsage, match="x- is no name for pip"):
        written(entries, "pip")
