"""``archiver get --extract`` writes files below a new folder, and nowhere else."""

import fcntl
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from archiver.client import ArchiveRequest, Client, Unpacking
from archiver.client.new_folder import NewFolder
from tests.client.responses import GET, NODE_URL, OBJECT, REV_URL
from tests.parts.commands import Run
from tests.parts.scripted_server import Response, ScriptedServer, ranged

MTIME = 1_000_000_000
TREE = {"ash-42/a": b"one", "ash-42/b/c": b"two" * 1000, "ash-42/b/d/e": b""}

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **changes: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), MTIME, 0o644
    for attribute, value in changes.items():
        setattr(info, attribute, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return member(name, type=kind, linkname=target)


def tar(*members: Member, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def plain() -> list[Member]:
    return [member(name, content) for name, content in TREE.items()]


def zipped(*entries: tuple[str, bytes, int], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name, (2001, 9, 9, 1, 46, 40))
            entry.external_attr = mode << 16
            archive.writestr(entry, content, compress_type=how)
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "tar": lambda: tar(*plain(), mode="w"),
    "tar.gz": lambda: tar(*plain()),
    "tar.gz of two members": lambda: _in_two(tar(*plain(), mode="w")),
    "tar.bz2": lambda: tar(*plain(), mode="w:bz2"),
    "tar.xz": lambda: tar(*plain(), mode="w:xz"),
    "tar.zst": lambda: zstandard.compress(tar(*plain(), mode="w")),
    "zip": lambda: zipped(*((name, content, 0o100644) for name, content in TREE.items())),
}


def _in_two(content: bytes) -> bytes:
    import gzip  # noqa: PLC0415

    return gzip.compress(content[:700]) + gzip.compress(content[700:])


@pytest.fixture
def serve(server: ScriptedServer, hit: Response) -> Callable[..., None]:
    """Return a function that serves other bytes as the archive."""

    def serve_bytes(content: bytes, *, broken_at: int | None = None) -> None:
        named = {
            "Archiver-SHA256": hashlib.sha256(content).hexdigest(),
            "Archiver-Size": str(len(content)),
        }
        for path in (REV_URL, NODE_URL):
            server.respond(path, Response(status=302, headers={**hit.headers, **named}))
        server.respond(OBJECT, ranged(content, broken_at=broken_at))

    return serve_bytes


@pytest.fixture
def extract(run: Run, server: ScriptedServer) -> Run:
    return lambda *words, **env: run(
        *GET, "--server", server.url, "--extract", "tree", *words, **env
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", ARCHIVES)
def test_the_files_appear_and_the_archive_does_not(
    extract: Run, serve: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    serve(ARCHIVES[kind]())
    result = extract()
    assert result.exit_code == 0, result.output
    assert contents(tmp_path / "tree") == TREE
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert "tree: 3 files: " in result.stderr
    if kind != "zip":  # which has local time
        assert (tmp_path / "tree/ash-42/a").stat().st_mtime == MTIME


def test_the_archive_stays_where_an_output_or_a_cache_names_it(
    extract: Run, serve: Callable[..., None], tmp_path: Path
) -> None:
    content = tar(*plain())
    serve(content)
    assert extract("-o", "here", "--cache", "cache").exit_code == 0
    assert (tmp_path / "here").read_bytes() == content
    again = extract("--cache", "cache", "--force")
    assert again.exit_code == 0, again.output
    assert contents(tmp_path / "tree") == TREE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "here", "tree"]


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        (("--strip", "1"), {"a", "b/c", "b/d/e"}),
        (("--strip", "2"), {"c", "d/e"}),
        (("--strip", "1", "--include", "b"), {"b/c", "b/d/e"}),
        (("--include", "*/c", "--include", "ash-42/a"), {"ash-42/a", "ash-42/b/c"}),
    ),
)
def test_paths_are_shortened_and_chosen(
    extract: Run,
    serve: Callable[..., None],
    tmp_path: Path,
    words: tuple[str, ...],
    expected: set[str],
) -> None:
    serve(tar(*plain()))
    result = extract(*words)
    assert result.exit_code == 0, result.output
    assert {*contents(tmp_path / "tree")} == expected


def test_modes_and_links_are_those_of_the_tree(
    extract: Run, serve: Callable[..., None], tmp_path: Path
) -> None:
    serve(
        tar(
            member("t/run", b"#!", mode=0o6777),
            member("t/read", b"x", mode=0o077),
            member("t/deep/file", b"y"),
            link("t/deep/up", "../run"),
            link("t/hard", "t/run", tarfile.LNKTYPE),
            member("t/read", b"later"),
        )
    )
    before = os.umask(0o022)
    try:
        result = extract("--strip", "1")
    finally:
        os.umask(before)
    assert result.exit_code == 0, result.output
    tree = tmp_path / "tree"
    assert stat.S_IMODE((tree / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tree / "read").stat().st_mode) == 0o644
    assert stat.S_IMODE(tree.stat().st_mode) == 0o755
    assert (tree / "deep/up").readlink() == Path("../run")
    assert (tree / "hard").read_bytes() == b"#!"
    assert (tree / "read").read_bytes() == b"later"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a path upwards": lambda: tar(member("t/../../victim", b"x")),
    "a link out": lambda: tar(link("t/out", "../../victim")),
    "an absolute link": lambda: tar(link("t/out", "/etc/passwd")),
    "a link through a link": lambda: tar(
        member("t/d/e/f"), link("t/d/e/up", "../.."), link("t/out", "d/e/up/../../victim")
    ),
    "a link through a later link": lambda: tar(
        member("t/d/e/f"), link("t/out", "d/e/up/../../victim"), link("t/d/e/up", "../..")
    ),
    "a file below a link": lambda: tar(link("t/d", "."), member("t/d/file", b"x")),
    "a file below a file": lambda: tar(member("t/d", b"x"), member("t/d/file", b"x")),
    "a file in place of a folder": lambda: tar(member("t/d/file", b"x"), member("t/d", b"x")),
    "a hard link out": lambda: tar(link("t/hard", "../victim", tarfile.LNKTYPE)),
    "a hard link to a link": lambda: tar(link("t/l", "t"), link("t/hard", "t/l", tarfile.LNKTYPE)),
    "a device": lambda: tar(member("t/null", type=tarfile.CHRTYPE)),
    "a FIFO": lambda: tar(member("t/fifo", type=tarfile.FIFOTYPE)),
    "a damaged tar": lambda: tar(*plain(), mode="w")[:700],
    "a tar without its end": lambda: tar(member("t/a"), mode="w")[:512],
    "a tar with a damaged header": lambda: _damaged(tar(member("t/a"), member("t/b"), mode="w")),
    "a header of 2 MB": lambda: tar(member("t/a", pax_headers={"comment": "x" * 2_000_000})),
    "a header of digits": lambda: _with_header(b"1" * 60_000),
    "a long name": lambda: tar(member("t/" + "x" * 300)),
    "an empty link": lambda: tar(link("t/link", "")),
    "headers of headers": lambda: tar(*[member("t" * 500, type=tarfile.GNUTYPE_LONGNAME)] * 2000),
    "a sparse file": lambda: tar(member("t/sparse", type=tarfile.GNUTYPE_SPARSE)),
    "a damaged gzip": lambda: tar(*plain())[:-100],
    "no archive": lambda: b"hello" * 1000,
    "nothing": lambda: b"P",
    "a zip with a path upwards": lambda: zipped(("t/../../victim", b"x", 0o100644)),
    "a zip with a link out": lambda: zipped(("t/out", b"../../victim", 0o120777)),
    "a zip with a long link": lambda: zipped(("t/out", b"x" * 5000, 0o120777)),
    "a zip with an empty link": lambda: zipped(("t/out", b"", 0o120777)),
    "a zip with bzip2": lambda: zipped(("t/a", b"x" * 999, 0o100644), how=zipfile.ZIP_BZIP2),
    "a zip with lzma": lambda: zipped(("t/a", b"x" * 999, 0o100644), how=zipfile.ZIP_LZMA),
    "a damaged zip": lambda: zipped(("t/a", b"x", 0o100644))[:-10],
}


def _with_header(data: bytes) -> bytes:
    """Return a tar that begins with a PAX header of these bytes."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(data)
    return (
        header.tobuf(tarfile.USTAR_FORMAT)
        + data
        + bytes(-len(data) % 512)
        + tar(*plain(), mode="w")
    )


def _damaged(content: bytes) -> bytes:
    """Return a tar whose second header is invalid."""
    return content[:600] + b"x" + content[601:]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_leaves_nothing(
    extract: Run, serve: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    (tmp_path / "victim").write_text("precious")
    serve(HOSTILE[kind]())
    result = extract()
    assert result.exit_code == 5, result.output
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (tmp_path / "victim").read_text() == "precious"


def test_an_absolute_path_is_one_below_the_folder(
    extract: Run, serve: Callable[..., None], tmp_path: Path
) -> None:
    serve(tar(member("/etc/file", b"x")))
    assert extract().exit_code == 0
    assert contents(tmp_path / "tree") == {"etc/file": b"x"}


def test_a_folder_with_files_is_replaced_only_with_force(
    extract: Run, serve: Callable[..., None], server: ScriptedServer, tmp_path: Path
) -> None:
    serve(tar(*plain()))
    (tmp_path / "tree").mkdir()
    assert extract().exit_code == 0
    (tmp_path / "tree/own").touch()
    server.requests.clear()
    refused = extract()
    assert refused.exit_code == 1
    assert "--force replaces it" in refused.stderr
    assert extract("--force").exit_code == 0
    assert contents(tmp_path / "tree") == TREE


def test_a_download_that_broke_off_is_resumed_and_extracted_once(
    extract: Run, serve: Callable[..., None], server: ScriptedServer, tmp_path: Path
) -> None:
    content = tar(*plain(), member("t/big", os.urandom(50_000)))
    serve(content, broken_at=30_000)
    broken = extract("--retries", "0")
    assert broken.exit_code == 75
    assert not (tmp_path / "tree").exists()
    serve(content)
    server.requests.clear()
    result = extract()
    assert result.exit_code == 0, result.output
    assert {headers.get("Range") for _, headers in server.requests} == {None, "bytes=30000-"}
    assert (tmp_path / "tree/t/big").stat().st_size == 50_000
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_wrong_bytes_are_never_visible(
    extract: Run, serve: Callable[..., None], server: ScriptedServer, tmp_path: Path
) -> None:
    content = tar(*plain(), mode="w")
    serve(content)
    server.respond(OBJECT, ranged(tar(member("t/evil", b"x"), mode="w")[: len(content)]))
    assert extract().exit_code == 5
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words", (("--strip", "1"), ("--include", "x"), ("--extract", "tree", "-o", "-"))
)
def test_options_that_need_a_folder_or_a_file_say_so(
    run: Run, server: ScriptedServer, words: tuple[str, ...]
) -> None:
    assert run(*GET, "--server", server.url, *words).exit_code == 2
    assert not server.requests


def test_a_program_extracts_as_the_command_does(
    serve: Callable[..., None], server: ScriptedServer, tmp_path: Path
) -> None:
    serve(tar(*plain()))
    request = ArchiveRequest("hgmo", "projects/ash", "default")
    with Client(server.url) as client:
        got = client.get(request, unpacking=Unpacking(tmp_path / "tree", strip=1))
    assert (got.path, got.files) == (None, 3)
    assert contents(tmp_path / "tree") == {name[7:]: content for name, content in TREE.items()}


def test_a_folder_that_a_killed_process_left_is_removed(
    extract: Run, serve: Callable[..., None], tmp_path: Path
) -> None:
    for name in (".tree.a.part", ".tree.b.part", ".tree.c.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("half")
    for name in (".tree.a.part", ".tree.b.part"):
        os.utime(tmp_path / name, (MTIME, MTIME))
    locked = os.open(tmp_path / ".tree.b.part", os.O_RDONLY)
    fcntl.flock(locked, fcntl.LOCK_EX)
    serve(tar(*plain()))
    assert extract().exit_code == 0
    os.close(locked)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"tree", ".tree.b.part", ".tree.c.part"}


def test_a_link_to_a_folder_stays(extract: Run, serve: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").write_text("old")
    (tmp_path / "tree").symlink_to("real")
    serve(tar(*plain()))
    assert extract().exit_code == 1
    assert extract("--force").exit_code == 0
    assert (tmp_path / "tree").readlink() == Path("real")
    assert contents(tmp_path / "real") == TREE


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    target = tmp_path / "tree"
    (target / "old").mkdir(parents=True)
    new = NewFolder(target)
    new.path.rmdir()
    with pytest.raises(OSError, match="No such file"):
        new.publish(replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
    assert [path.name for path in target.iterdir()] == ["old"]


@pytest.mark.parametrize("words", (("--include", "nothing"), ("--strip", "9")))
def test_options_that_leave_nothing_are_an_error(
    extract: Run, serve: Callable[..., None], tmp_path: Path, words: tuple[str, ...]
) -> None:
    serve(tar(*plain()))
    result = extract(*words)
    assert (result.exit_code, [*tmp_path.iterdir()]) == (1, [])
    assert "check --strip and --include" in result.stderr


def test_of_several_processes_one_extracts_and_the_others_say_why(
    server: ScriptedServer, serve: Callable[..., None], tmp_path: Path
) -> None:
    serve(tar(*plain()))
    words = (*GET, "--server", server.url, "--extract", "tree", "--quiet")
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "archiver", *words],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert sorted(code for _, code in ended) == [0, 1, 1, 1]
    assert all("tree exists and is not empty" in said for said, code in ended if code)
    assert contents(tmp_path / "tree") == TREE
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]
