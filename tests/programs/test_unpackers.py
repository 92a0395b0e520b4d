"""Unpackers extract verified archives identically, and archives of git and GNU tar are valid."""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.formats import zip_records
from tests.formats.git_trees import FILES
from tests.formats.git_trees import ROOT as GIT_ROOT
from tests.formats.samples import ROOT, an_archive, note, verify_chunks
from tests.formats.test_comments import Carried
from tests.formats.test_zip_readers import FULL
from tests.formats.trees import LONG, Item, pack
from tests.formats.zip_records import assembled, with_hidden_directory

pytestmark = pytest.mark.programs

TREE = (
    Item(path=".hg_archival.txt", content=note()),
    Item(path="Docs", link="docs", mode=0o777),
    Item(path="README.md", link="readme.md", mode=0o777),
    Item(path="absolute", link="/nowhere/at/all", mode=0o777),
    Item(path="docs/above", link="../../../elsewhere", mode=0o777),
    Item(path="docs/turning", link="../docs/../readme.md", mode=0o777),
    Item(path="docs/with a line's end", link="../readme.md\n", mode=0o777),
    Item(path="docs/böök", content="ü".encode()),
    Item(path="itself", link="itself", mode=0o777),
    Item(path="readme.md", content=b"read me\n"),
    Item(path="run", content=b"#!/bin/sh\n", mode=0o755),
    Item(path=LONG, content=b"deep"),
    Item(path="far", link=LONG, mode=0o777),
)
OUTSIDE = 2

UNPACKERS = (
    ("tar", ("tar", "--extract", "--file", "{file}", "--directory", "{folder}")),
    ("tar", ("bsdtar", "-xf", "{file}", "-C", "{folder}")),
    ("tar", ("python3", "-m", "tarfile", "--extract", "{file}", "{folder}")),
    ("zip", ("unzip", "-q", "{file}", "-d", "{folder}")),
    ("zip", ("bsdtar", "-xf", "{file}", "-C", "{folder}")),
)


@pytest.mark.parametrize(("suffix", "command"), UNPACKERS, ids=lambda value: value[0])
def test_unpackers_extract_verified_links_identically(
    suffix: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    file, folder = tmp_path / f"file.{suffix}", tmp_path / "folder"
    file.write_bytes(pack(TREE, suffix))
    folder.mkdir()

    verified = asyncio.run(verify_chunks(an_archive(suffix), [file.read_bytes()]))
    _run(*(part.format(file=file, folder=folder) for part in command))

    assert verified.links_outside == OUTSIDE
    assert _found(folder / ROOT) == {item.path: item.link or item.content for item in TREE}
    assert [path.name for path in folder.iterdir()] == [ROOT]


@pytest.mark.parametrize(("suffix", "command"), UNPACKERS, ids=lambda value: value[0])
def test_unpackers_are_silent_about_the_record_of_a_commit(
    suffix: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    carried = Carried(
        tmp_path, files={path: file for path, file in FILES.items() if path.isascii()}
    )
    file, folder, expected = tmp_path / f"file.{suffix}", tmp_path / "folder", tmp_path / "expected"
    file.write_bytes(carried.convert(carried.tar, "tar", suffix))
    for each in (folder, expected):
        each.mkdir()
    plain = tmp_path / "plain.tar"
    plain.write_bytes(carried.repository.archive(carried.node, root=GIT_ROOT))

    ran = subprocess.run(
        [part.format(file=file, folder=folder) for part in command],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    _run("tar", "--extract", "--file", str(plain), "--directory", str(expected))

    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert _found(folder) == _found(expected)
    assert _executables(folder) == _executables(expected)


def test_unzip_prints_the_node_and_not_the_record(tmp_path: Path) -> None:
    carried = Carried(tmp_path)
    file = tmp_path / "file.zip"
    file.write_bytes(carried.convert(carried.tar, "tar", "zip"))
    command = ["unzip", str(file), "-d", str(tmp_path)]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    assert carried.node.encode() in printed
    assert carried.record.encode() not in printed


def _executables(root: Path) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o100
    }


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})


def _found(root: Path) -> Mapping[str, str | bytes]:
    """Return the targets of links and the bytes of files below *root*, by relative path."""
    return {
        str(path.relative_to(root)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


ZIP_READERS = (
    ("unzip", "-Z1", "{file}"),
    ("bsdtar", "-tf", "{file}"),
    (
        "python3",
        "-c",
        "import sys, zipfile; print(*zipfile.ZipFile(sys.argv[1]).namelist(), sep='\\n')",
        "{file}",
    ),
    ("jar", "--list", "--file", "{file}"),
)
UNUSUAL = {
    **{f"wide-{sorted(full)}": assembled(zip_records.TREE, wide=True, full=full) for full in FULL},
    "hidden": with_hidden_directory("extra", 0),
    "record": assembled((replace(zip_records.TREE[0], comment=b"a line"), *zip_records.TREE[1:])),
    "commented": assembled(zip_records.TREE, comment=b"1" * 40),
}


@pytest.mark.parametrize("command", ZIP_READERS, ids=lambda value: value[0])
@pytest.mark.parametrize("form", UNUSUAL)
def test_programs_read_the_same_directory_of_accepted_zips(
    form: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "file.zip"
    file.write_bytes(UNUSUAL[form])
    asyncio.run(verify_chunks(an_archive("zip"), [UNUSUAL[form]]))
    run = [part.format(file=file) for part in command]
    listed = subprocess.run(run, capture_output=True, check=True).stdout
    assert listed.split() == [part.name for part in zip_records.TREE]


@pytest.mark.parametrize("suffix", ("tar", "tar.gz", "zip"))
def test_archives_of_git_are_accepted(suffix: str, tmp_path: Path) -> None:
    repo, file = tmp_path / "repo", tmp_path / f"file.{suffix}"
    for item in TREE[1:]:
        path = repo / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if item.link:
            path.symlink_to(item.link)
        else:
            path.write_bytes(item.content)
            path.chmod(item.mode)
    author = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for arguments in (
        ("init", "--quiet"),
        ("add", "--all"),
        (*author, "commit", "--quiet", "--message=x"),
        ("archive", f"--format={suffix}", f"--prefix={ROOT}/", f"--output={file}", "HEAD"),
    ):
        _run("git", "-C", str(repo), *arguments)

    verified = asyncio.run(verify_chunks(an_archive(suffix), [file.read_bytes()]))

    assert verified.links_outside == OUTSIDE


@pytest.mark.parametrize("style", ("gnu", "pax", "ustar"))
def test_archives_of_gnu_tar_are_accepted(style: str, tmp_path: Path) -> None:
    folder = tmp_path / ROOT
    (folder / "d" / ("n" * 90)).mkdir(parents=True)
    (folder / "d" / ("n" * 90) / ("m" * 90)).write_bytes(b"x")
    (folder / "link").symlink_to("/nowhere")
    file = tmp_path / "file.tar"

    _run("tar", "--create", f"--format={style}", f"--file={file}", "-C", str(tmp_path), ROOT)

    assert asyncio.run(verify_chunks(an_archive("tar"), [file.read_bytes()])).links_outside == 1
