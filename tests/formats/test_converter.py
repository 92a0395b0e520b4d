"""Conversions preserve members, and their result depends on the members alone."""

import asyncio
import hashlib
import io
import os
import random
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import AsyncGenerator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import NotConvertible
from archiver.formats import conversion
from archiver.formats.convert import ProcessConverter
from archiver.formats.workspace import Workspace
from archiver.formats.zip.file_reader import ZipFileReader
from archiver.model import SUFFIXES
from tests.formats.samples import ROOT, an_archive, verify_chunks
from tests.formats.trees import RICH, Item, pack, tar_of, unpack, zip_of
from tests.parts.thorough import thorough

AMPLE = 1 << 40
GOLDEN = {
    "tar": "e02ef8af5cb93345a5d542a66334cfdffd72223194bea08b1851d1693270317e",
    "tar.gz": "cb41fec50fda798c753018f8ff18ebafbaac081afb2b79db563d3f1cf970bdd4",
    "tar.bz2": "3add8ccad2410f35f2f1a33655c0193a04efb25d2491bf3ec2413f0e65430600",
    "tar.xz": "81bd6565cc4074fd2e85162a8408e1e05e99bdd38633bda332059e7faf282ea9",
    "tar.zst": "1c723197e268a1ee4dc3c9fc8aa569775443f35d049782e7e96c5a58a18796cd",
    "zip": "400ec304ec4a8320b4ee0d3c0fe042c47f7ab2c6b291a223422e07d9e0159e70",
}
"""SHA-256 of the converted RICH. If one of them changes, archives that people have pinned change as
well: increase ``convert.VERSION``, unless ``version`` already contains a library's new version."""

QUICK = {"tar.gz", "zip"}
EACH_SUFFIX = (*sorted(QUICK), *thorough(*sorted(set(SUFFIXES) - QUICK)))


async def convert(
    data: bytes,
    source: str,
    target: str,
    *,
    folder: Path,
    subdir: str = "",
    threads: int = 2,
    chunk_bytes: int = 100_000,
) -> bytes:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(data), chunk_bytes):
            yield data[start : start + chunk_bytes]

    converter = ProcessConverter(
        workspace=Workspace(folder=folder, max_bytes=AMPLE), threads=threads
    )
    async with converter.convert(
        chunks(),
        original=an_archive(source),
        target=an_archive(target, subdir),
        root=ROOT,
    ) as pieces:
        return b"".join([piece async for piece in pieces])


def converted(data: bytes, source: str, target: str, folder: Path, subdir: str = "") -> bytes:
    return asyncio.run(convert(data, source, target, folder=folder, subdir=subdir))


def converted_here(data: bytes, source: str, target: str, folder: Path) -> bytes:
    """Return the same, converted within this process."""
    with TemporaryFile(dir=folder, buffering=0) as spool:
        spool.write(data)
        job = conversion.Job(
            original=an_archive(source),
            target=an_archive(target),
            root=ROOT,
            threads=2,
            folder=str(folder),
            max_bytes=AMPLE,
            spool=spool.fileno() if source == "zip" else None,
        )
        return b"".join(conversion.convert_stream(job, iter(() if source == "zip" else (data,))))


@pytest.mark.parametrize("target", EACH_SUFFIX)
def test_names_modes_times_links_and_contents_survive(target: str, tmp_path: Path) -> None:
    """From one format; the next test shows that the result is the same from all others."""
    data = converted(pack(RICH, "zip"), "zip", target, tmp_path)

    assert unpack(data, target) == list(RICH)
    assert asyncio.run(verify_chunks(an_archive(target), [data])).root == ROOT


@pytest.mark.thorough
@pytest.mark.parametrize("target", SUFFIXES)
def test_the_result_does_not_depend_on_the_originals_format(target: str, tmp_path: Path) -> None:
    made = {converted(pack(RICH, source), source, target, tmp_path) for source in SUFFIXES}
    for style in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        made.add(converted(tar_of(RICH, style=style), "tar", target, tmp_path))

    assert len(made) == 1


@pytest.mark.parametrize("target", EACH_SUFFIX)
def test_the_result_has_a_pinned_sha256(target: str, tmp_path: Path) -> None:
    data = converted(pack(RICH, "zip"), "zip", target, tmp_path)

    assert hashlib.sha256(data).hexdigest() == GOLDEN[target]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("target", "blocks"),
    (("tar", 1), ("tar.gz", 3), ("zip", 3), ("tar.bz2", 2), ("tar.xz", 18), ("tar.zst", 18)),
)
def test_the_result_does_not_depend_on_threads_or_chunks(
    target: str, blocks: int, tmp_path: Path
) -> None:
    noise = random.Random(3).randbytes(100_000)  # noqa: S311 - must be the same every time
    data = tar_of((*RICH, Item(path="large", content=noise * 10 * blocks)))

    async def play() -> set[bytes]:
        return {
            await convert(
                data, "tar", target, folder=tmp_path, threads=threads, chunk_bytes=chunk_bytes
            )
            for threads, chunk_bytes in ((1, 1 << 20), (2, 99_991), (5, 1 << 20), (3, len(data)))
        }

    assert len(asyncio.run(play())) == 1


@pytest.mark.thorough
def test_the_result_does_not_depend_on_the_machine(tmp_path: Path) -> None:
    (tmp_path / "given.zip").write_bytes(pack(RICH, "zip"))
    script = """if True:
        import asyncio, hashlib, sys
        from pathlib import Path
        from tests.formats.test_converter import converted
        data = Path("given.zip").read_bytes()
        print(hashlib.sha256(converted(data, "zip", "tar.gz", Path("."))).hexdigest())
    """
    path = os.pathsep.join((str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")))
    elsewhere = (
        {"TZ": "Pacific/Auckland", "PYTHONHASHSEED": "1", "LC_ALL": "C"},
        {"TZ": "UTC", "PYTHONHASHSEED": "2", "PYTHONUTF8": "1", "LC_ALL": "de_DE.UTF-8"},
    )

    made = {
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path, **env},
            check=True,
            capture_output=True,
        ).stdout.strip()
        for env in elsewhere
    }

    assert made == {GOLDEN["tar.gz"].encode()}


@pytest.mark.thorough
@pytest.mark.parametrize("source", ("zip", "tar.zst"))
@pytest.mark.parametrize("target", SUFFIXES)
def test_a_subdir_is_the_same_whether_extracted_or_original(
    source: str, target: str, tmp_path: Path
) -> None:
    part = [item for item in RICH if item.path.startswith("testing/")]

    cut = converted(pack(RICH, source), source, target, tmp_path, subdir="testing")

    assert unpack(cut, target) == part
    assert cut == converted(pack(part, source), source, target, tmp_path)


@pytest.mark.thorough
def test_the_result_is_a_single_compressed_stream(tmp_path: Path) -> None:
    """Readers of streams, such as tarfile's ``r|gz``, stop after the first one."""
    content = random.Random(5).randbytes(600_000)  # noqa: S311

    for target, number in (("tar.gz", 4), ("tar.bz2", 3), ("tar.xz", 16)):
        items = [Item(path=f"{number}", content=content) for number in range(number)]
        data = converted(tar_of(items), "tar", target, tmp_path)
        stream = cast("Literal['r|gz', 'r|bz2', 'r|xz']", target.replace("tar.", "r|"))
        with tarfile.open(fileobj=io.BytesIO(data), mode=stream) as tar:
            assert len(list(tar)) == len(items)


def test_a_folder_stays_a_folder(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folder = tarfile.TarInfo(f"{ROOT}/folder")
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o750, 1_600_000_000
        archive.addfile(folder)

    zipped = converted(buffer.getvalue(), "tar", "zip", tmp_path)
    again = converted(zipped, "zip", "tar", tmp_path)

    with zipfile.ZipFile(io.BytesIO(zipped)) as archive_:
        (info,) = archive_.infolist()
        assert info.is_dir()
        assert info.external_attr >> 16 == stat.S_IFDIR | 0o750
    with tarfile.open(fileobj=io.BytesIO(again)) as tar:
        (member,) = tar
        assert (member.isdir(), member.mode, member.mtime) == (True, 0o750, 1_600_000_000)


@pytest.mark.parametrize("kind", (tarfile.CHRTYPE, tarfile.LNKTYPE))
def test_devices_and_hard_links_are_not_convertible(kind: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        device = tarfile.TarInfo(f"{ROOT}/null")
        device.type, device.linkname = kind, f"{ROOT}/README"
        archive.addfile(device)

    with pytest.raises(NotConvertible, match="null"):
        converted(buffer.getvalue(), "tar", "tar.gz", tmp_path)


def test_names_need_not_be_text(tmp_path: Path) -> None:
    name = f"{ROOT}/".encode() + b"\xff\xfe"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(os.fsdecode(name)))

    zipped = converted(buffer.getvalue(), "tar", "zip", tmp_path)
    tar = converted(zipped, "zip", "tar", tmp_path)

    assert name in zipped
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as archive:
        assert os.fsencode(archive.getnames()[0]) == name
    assert tar == converted(buffer.getvalue(), "tar", "tar", tmp_path)


texts = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), max_size=9
)
names = st.lists(texts.filter(lambda text: text not in {"", ".", ".."}), min_size=1, max_size=4)
items = st.builds(
    Item,
    path=names.map("/".join),
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777).filter(bool),
    mtime=st.integers(-(2**31), 2**31 - 1),
)


@settings(max_examples=60)
@given(
    tree=st.lists(items, min_size=1, max_size=8, unique_by=lambda item: item.path),
    source=st.sampled_from(("zip", "tar")),
    target=st.sampled_from(SUFFIXES),
)
def test_any_tree_survives(
    tree: list[Item], source: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = converted_here(pack(tree, source), source, target, folder)

    assert unpack(data, target) == tree
    assert data == converted_here(data, target, target, folder)


def test_an_end_record_whose_numbers_contain_its_signature_is_found(tmp_path: Path) -> None:
    """The offset of the directory contains it in one of four billion zips."""
    data = zip_of(RICH)
    offset = int.from_bytes(b"PK\x05\x06", "little")
    with TemporaryFile(dir=tmp_path) as file:
        start = data.rindex(b"PK\x05\x06")
        (at,) = struct.unpack_from("<I", data, start + 16)
        file.write(data[:at])
        file.seek(offset)
        file.write(data[at : start + 16] + struct.pack("<I", offset) + data[start + 20 :])
        file.flush()

        names = [member.name.decode() for member, _ in ZipFileReader(file.fileno(), file.tell())]

    assert names == [item.name for item in RICH]
