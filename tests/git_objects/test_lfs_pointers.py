"""Pointers of Git LFS: which files are any, and which of a commit's files are replaced."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from archiver.errors import ArchiveTooLarge, LfsRefused, MirrorFailed
from archiver.git_objects import object_id
from archiver.git_objects.lfs_pointer import Pointer, parse_pointer
from archiver.model import Archive, Limits, Node
from archiver.sources.git.lfs.pointer_search import (
    ENTRIES_MAX,
    ENTRIES_MAX_BYTES,
    LfsEntry,
    PointerReader,
    find_pointers,
)
from archiver.sources.git.listing import list_tree
from tests.git_repositories import NON_UTF8, Files, GitRepository, create, executable, symlink
from tests.parts.git_host import REPO
from tests.sources.git_packs import add, new_mirrors, pack_of

SHA256 = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
V1 = "version https://git-lfs.github.com/spec/v1"
OID = f"oid sha256:{SHA256}"
SIZE = "size 12345"
POINTER = Pointer(SHA256, 12345)
ARCHIVE = Archive(source="src", repo=REPO, node=Node("1" * 40), subdir="", suffix="tar")
EXTENSION = f"ext-0-foo sha256:{SHA256}"


def text(*lines: str, end: str = "\n") -> bytes:
    return "".join(f"{line}{end}" for line in lines).encode()


CANONICAL = text(V1, OID, SIZE)

POINTERS: Mapping[str, bytes] = {
    "canonical": CANONICAL,
    "of the pre-release": text("version https://hawser.github.com/spec/v1", OID, SIZE),
    "of the alpha": text("version http://git-media.io/v/2", OID, SIZE),
    "with the ends of lines of Windows": text(V1, OID, SIZE, end="\r\n"),
    "without an end of its last line": CANONICAL[:-1],
    "with white space around it": b"\n \t\n" + CANONICAL + b" \n\n",
    "with empty lines in it": text(V1, "", OID, "", SIZE),
    "with a plus": text(V1, OID, "size +12345"),
    "with zeros": text(V1, OID, "size 0012345"),
    "as long as it may be": CANONICAL + b"\n" * (1023 - len(CANONICAL)),
}

OTHERS: Mapping[str, bytes] = {
    "empty": b"",
    "one byte too long": CANONICAL + b"\n" * (1024 - len(CANONICAL)),
    "of another version": text("version https://git-lfs.github.com/spec/v2", OID, SIZE),
    "with a blank behind its version": text(f"{V1} ", OID, SIZE),
    "without a version": text(OID, SIZE, "x" * 80),
    "in another order": text(V1, SIZE, OID),
    "with the version last": text(OID, SIZE, V1),
    "without a size": text(V1, OID),
    "with another key": text(V1, OID, SIZE, "name large.bin"),
    "with an unknown key before the size": text(V1, OID, "mode 644", SIZE),
    "with its oid twice": text(V1, OID, OID, SIZE),
    "with a line without a value": text(V1, OID, SIZE, "end"),
    "with two blanks": text(V1, OID, "size  12345"),
    "with a blank in front of a line": text(V1, f" {OID}", SIZE),
    "with capital digits": text(V1, OID.replace("a", "A"), SIZE),
    "with a digit too few": text(V1, OID[:-1], SIZE),
    "with a digit too many": text(V1, f"{OID}0", SIZE),
    "of another hash": text(V1, OID.replace("sha256", "sha512"), SIZE),
    "without a hash's name": text(V1, f"oid {SHA256}", SIZE),
    "with a negative size": text(V1, OID, "size -1"),
    "with a size in words": text(V1, OID, "size many"),
    "with a size in other digits": text(V1, OID, "size \N{ARABIC-INDIC DIGIT ONE}"),
    "with a size beyond 63 bits": text(V1, OID, f"size {1 << 63}"),
    "with an endless size": text(V1, OID, f"size {'1' * 500}"),
    "with a carriage return in a value": text(V1, f"{OID}\r\r", SIZE),
    "with an extension after its size": text(V1, OID, SIZE, EXTENSION),
    "with two extensions of one priority": text(
        V1, EXTENSION, EXTENSION.replace("foo", "bar"), OID, SIZE
    ),
    "with an extension of another hash": text(V1, EXTENSION.replace("256", "512"), OID, SIZE),
    "with an extension of two digits": text(V1, EXTENSION.replace("0", "10", 1), OID, SIZE),
    "prose": b"version https://git-lfs.github.com/spec/v1 is the first line of a pointer.\n" * 3,
}


@pytest.mark.parametrize("name", POINTERS)
def test_what_git_lfs_reads_as_a_pointer_is_one(name: str) -> None:
    assert parse_pointer(POINTERS[name]) == POINTER


@pytest.mark.parametrize("name", OTHERS)
def test_other_texts_are_no_pointers(name: str) -> None:
    assert parse_pointer(OTHERS[name]) is None


def test_a_pointer_is_written_as_git_lfs_writes_it() -> None:
    assert POINTER.text == CANONICAL


@pytest.mark.parametrize("place", (0, 1, 2))
def test_a_pointer_with_an_extension_is_refused(place: int) -> None:
    lines = [V1, OID, SIZE]
    lines.insert(place, EXTENSION)

    with pytest.raises(LfsRefused, match="extensions"):
        parse_pointer(text(*lines))


def test_only_the_hash_of_no_bytes_makes_an_empty_pointer() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    assert Pointer(empty, 0).is_empty
    assert not Pointer(SHA256, 0).is_empty
    assert not Pointer(empty, 1).is_empty


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return create(tmp_path / "origin.git")


def search(repository: GitRepository, node: str, folder: Path, subdir: str = "") -> list[LfsEntry]:
    async def play() -> list[LfsEntry]:
        async with new_mirrors(folder / "mirrors").use("src", REPO, len(node)) as mirror:
            await add(mirror, pack_of(repository, node), node)
            archive = Archive(
                source="src", repo=REPO, node=Node(node), subdir=subdir, suffix="tar", lfs=True
            )
            async with list_tree(mirror, archive, Limits()) as listing:
                return await find_pointers(mirror, archive, listing)

    return asyncio.run(play())


def paths(repository: GitRepository, files: Files, folder: Path, subdir: str = "") -> list[bytes]:
    found = search(repository, repository.commit(files), folder, subdir)
    return [entry.path for entry in found]


TRACKED = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"


def test_a_pointer_with_the_attribute_is_found_with_its_blob(
    repository: GitRepository, tmp_path: Path
) -> None:
    lenient = POINTERS["with the ends of lines of Windows"]
    node = repository.commit({".gitattributes": TRACKED, "a/b.bin": lenient})

    blob = repository.git("rev-parse", f"{node}:a/b.bin")
    assert search(repository, node, tmp_path) == [LfsEntry(b"a/b.bin", blob, POINTER, lenient)]


def test_a_repository_with_sha256_ids_has_pointers(tmp_path: Path) -> None:
    repository = create(tmp_path / "modern.git", object_format="sha256")

    assert paths(repository, {".gitattributes": TRACKED, "a.bin": CANONICAL}, tmp_path) == [
        b"a.bin"
    ]


def test_only_pointers_with_the_attribute_are_found(
    repository: GitRepository, tmp_path: Path
) -> None:
    files: Files = {
        ".gitattributes": TRACKED + b"off.bin -filter\nother.bin filter=crypt\nset.bin filter\n",
        "a.bin": CANONICAL,
        "a.txt": CANONICAL,
        "off.bin": CANONICAL,
        "other.bin": CANONICAL,
        "set.bin": CANONICAL,
        "prose.bin": OTHERS["prose"],
        "small.bin": b"small",
        "large.bin": b"large" * 1000,
        "link.bin": symlink(CANONICAL[:100]),
        "run.bin": executable(CANONICAL),
        "odd\nna\tme.bin": CANONICAL,
        f"{NON_UTF8}.bin": CANONICAL,
    }

    assert sorted(paths(repository, files, tmp_path)) == [
        b"a.bin",
        b"caf\xe9/men\xfc.txt.bin",
        b"odd\nna\tme.bin",
        b"run.bin",
    ]


def test_the_attributes_of_a_subdir_are_those_of_the_whole_commit(
    repository: GitRepository, tmp_path: Path
) -> None:
    files: Files = {
        ".gitattributes": b"[attr]large filter=lfs -text\n*.bin large\n",
        "a/.gitattributes": b"no.bin !filter\n",
        "a/b/.gitattributes": b"*.dat large\n",
        "a/b/c.bin": CANONICAL,
        "a/b/c.dat": CANONICAL,
        "a/no.bin": CANONICAL,
        "z.bin": CANONICAL,
    }

    assert paths(repository, files, tmp_path, "a/b") == [b"a/b/c.bin", b"a/b/c.dat"]


def test_a_commit_without_attributes_has_no_lfs_files(
    repository: GitRepository, tmp_path: Path
) -> None:
    assert paths(repository, {"a.bin": CANONICAL}, tmp_path) == []


def test_a_refused_pointer_is_named(repository: GitRepository, tmp_path: Path) -> None:
    files: Files = {".gitattributes": TRACKED, "a/b.bin": text(V1, EXTENSION, OID, SIZE)}

    with pytest.raises(LfsRefused, match=rf"'a/b.bin' in {REPO} cannot be fetched"):
        paths(repository, files, tmp_path)


def test_more_output_than_one_piece_is_read(repository: GitRepository, tmp_path: Path) -> None:
    files = {f"{number:05}.bin": CANONICAL for number in range(12_000)}

    found = paths(repository, {".gitattributes": TRACKED, **files}, tmp_path)
    assert found == [name.encode() for name in files]


def read(found: Iterable[tuple[bytes, bytes]]) -> list[LfsEntry]:
    """Return the entries that follow from paths and contents, as git would send them."""
    listed, sent = [], []
    for path, content in found:
        blob = object_id("blob", content, digits=40)
        listed.append((blob, path))
        sent.append(b"%s blob %d\n%s\n" % (blob.encode(), len(content), content))
    reader = PointerReader(ARCHIVE, iter(listed))
    reader.add(b"".join(sent))
    return reader.finish()


def read_in_pieces(output: bytes) -> None:
    reader = PointerReader(ARCHIVE, iter([("0" * 40, b"a.bin")]))
    for at in range(len(output)):
        reader.add(output[at : at + 1])
    reader.finish()


@pytest.mark.thorough
def test_the_number_of_lfs_files_is_bounded() -> None:
    files = [(b"%d" % number, CANONICAL) for number in range(ENTRIES_MAX + 1)]

    assert len(read(files[:-1])) == ENTRIES_MAX
    with pytest.raises(ArchiveTooLarge, match="LFS files"):
        read(files)


def test_the_size_of_the_names_of_lfs_files_is_bounded() -> None:
    files = [(b"%04000d" % number, CANONICAL) for number in range(ENTRIES_MAX_BYTES // 4000)]

    with pytest.raises(ArchiveTooLarge, match="LFS files"):
        read(files)


@pytest.mark.parametrize(
    "output",
    (
        b"",
        b"%s blob 126\n%s\n" % (b"0" * 40, CANONICAL[:-1]),
        b"%s missing\n" % (b"0" * 40),
        b"%s blob 9999\n" % (b"0" * 40) + b"x" * 9999,
        b"%s blob 126\nx" % (b"0" * 40),
    ),
)
def test_other_output_than_that_of_git_is_an_error(output: bytes) -> None:
    with pytest.raises(MirrorFailed):
        read_in_pieces(output)
