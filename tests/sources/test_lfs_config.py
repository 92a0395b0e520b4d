"""The address of Git LFS in a commit's .lfsconfig."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.model import Node
from archiver.sources.git.lfs.lfs_config import CONFIG_MAX_BYTES, read_lfs_url
from tests.git_repositories import Entry, Files, create, symlink
from tests.parts.git_host import REPO
from tests.sources.git_packs import add, new_mirrors, pack_of

URL = "https://example.org/group/project.git/info/lfs"
SIMPLE = f"[lfs]\n\turl = {URL}\n".encode()


def read(files: Files, folder: Path) -> str:
    repository = create(folder / "origin.git")
    node = repository.commit({"README": b"", **files})

    async def play() -> str:
        async with new_mirrors(folder / "mirrors").use("src", REPO, 40) as mirror:
            await add(mirror, pack_of(repository, node), node)
            url = await read_lfs_url(mirror, Node(node))
            assert not mirror.suspect
            return url

    return asyncio.run(play())


ADDRESSES: Mapping[str, bytes] = {
    "lfs.url": SIMPLE,
    "of the remote": f'[remote "origin"]\n\tlfsurl = "{URL}"\n'.encode(),
    "of both": f'[remote "origin"]\n\tlfsurl = x\n[LFS]\n\tURL = {URL}\n'.encode(),
    "the last one": f"[lfs]\n\turl = x\n\turl = {URL}\n".encode(),
    "beside other keys": SIMPLE + b"\tlocksverify\n\tfetchexclude = *\n[x]\ny = caf\xe9\n",
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_an_address_is_read(tmp_path: Path, name: str) -> None:
    assert read({".lfsconfig": ADDRESSES[name]}, tmp_path) == URL


OTHERS: Mapping[str, bytes | Entry] = {
    "no address": b"[lfs]\n\tlocksverify = true\n",
    "an address of another remote": f'[remote "other"]\n\tlfsurl = {URL}\n'.encode(),
    "a malformed file": SIMPLE + b"[lfs\n",
    "too large a file": SIMPLE + b"#" * CONFIG_MAX_BYTES,
    "a link": symlink(b"/etc/passwd"),
    "nothing": b"",
    "other bytes": bytes(range(256)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_have_no_address(tmp_path: Path, name: str) -> None:
    assert read({".lfsconfig": OTHERS[name]}, tmp_path) == ""


def test_a_commit_without_the_file_has_no_address(tmp_path: Path) -> None:
    assert read({"sub/.lfsconfig": SIMPLE}, tmp_path) == ""
    assert read({".lfsconfig/file": SIMPLE}, tmp_path / "folder") == ""


def test_files_of_this_machine_are_not_included(tmp_path: Path) -> None:
    included = tmp_path / "included"
    included.write_bytes(SIMPLE)

    assert read({".lfsconfig": f"[include]\n\tpath = {included}\n".encode()}, tmp_path) == ""
