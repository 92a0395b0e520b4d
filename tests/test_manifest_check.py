"""Stored manifests cannot refer to another archive, or inject a header."""

from dataclasses import replace
from datetime import UTC, datetime

from archiver.errors import PartOrigin
from archiver.git_objects import object_id
from archiver.manifest_check import (
    find_invalid_field,
    object_prefix,
    parse_object_key,
)
from archiver.model import Archive, Conversion, Manifest, Node
from archiver.tree_proof import COMMIT_MAX_BYTES, LfsFile, Part, TreeMatch, TreeProof
from tests.parts.fleet import an_archive

ARCHIVE = Archive(source="hgmo", repo="a b", node=Node("1" * 40), subdir="x", suffix="zip")
OTHER = replace(ARCHIVE, node=Node("2" * 40))
CONVERSION = Conversion(key=OTHER.key, sha256="b" * 64, size_bytes=1, converter="archiver 1, zlib")
PREFIX = object_prefix(ARCHIVE)
SOUND = Manifest(
    key=ARCHIVE.key,
    node=ARCHIVE.node,
    sha256="a" * 64,
    size_bytes=4,
    object_key=f"{PREFIX}a1-1/{ARCHIVE.file_name}",
    root="a b-111111111111",
    source_url="https://hg.example/a%20b/archive/111111111111.zip/x",
    created_at=datetime.now(UTC),
    conversion=CONVERSION,
)


def commit_with(size: int, digits: int) -> tuple[Archive, TreeProof]:
    """Return the archive of a commit of *size* bytes, and its proof."""
    commit = b"tree 1\n".ljust(size, b"x")
    archive = replace(ARCHIVE, node=Node(object_id("commit", commit, digits=digits)))
    return archive, TreeProof(commit=commit, tree="1" * digits, match=TreeMatch.ATTRIBUTES)


PROVEN, LONG_PROVEN = commit_with(300, 40), commit_with(COMMIT_MAX_BYTES, 64)


def proven(archive: Archive, proof: TreeProof) -> Manifest:
    return replace(
        SOUND,
        key=archive.key,
        node=archive.node,
        object_key=f"{object_prefix(archive)}a1-1/{archive.file_name}",
        proof=proof,
    )


def test_a_manifest_of_its_archive_is_valid() -> None:
    assert find_invalid_field(SOUND, ARCHIVE) is None
    assert find_invalid_field(replace(SOUND, conversion=None), ARCHIVE) is None


def test_the_tar_of_a_commit_needs_no_measures() -> None:
    passing = replace(CONVERSION, sha256="", size_bytes=0)
    assert find_invalid_field(replace(SOUND, conversion=passing), ARCHIVE) is None
    half = replace(CONVERSION, sha256="")
    assert find_invalid_field(replace(SOUND, conversion=half), ARCHIVE) == "conversion"


def test_a_proof_of_its_commit_is_valid_with_and_without_the_commit() -> None:
    for archive, proof in (PROVEN, LONG_PROVEN):
        manifest = proven(archive, proof)
        assert find_invalid_field(manifest, archive) is None
        assert find_invalid_field(manifest.without_commit(), archive) is None
        assert manifest.without_commit() == manifest


def part(**changes: object) -> Part:
    origin = PartOrigin(path="libs/a", url="../a.git", source="git", repo="team/a")
    commit = b"tree 2\n"
    sound = Part(
        origin=origin,
        node=object_id("commit", commit, digits=40),
        commit=commit,
        tree="3" * 40,
        match=TreeMatch.EXACT,
    )
    return replace(sound, **changes)  # type: ignore[arg-type]


def with_origin(**changes: str) -> Part:
    return part(origin=replace(part().origin, **changes))


def test_the_parts_of_a_proof_must_be_possible() -> None:
    archive, proof = PROVEN
    sound = proven(archive, replace(proof, parts=(part(), part(commit=b""))))
    assert find_invalid_field(sound, archive) is None
    assert sound.without_commit() == sound
    for wrong in (
        with_origin(path="../a"),
        with_origin(path="a\nb"),
        with_origin(url="http://a\r\nb"),
        with_origin(source="a/b"),
        with_origin(repo=""),
        part(node="1" * 40),
        part(node="1" * 64, commit=b""),
        part(tree="x" * 40),
    ):
        manifest = proven(archive, replace(proof, parts=(wrong,)))
        assert find_invalid_field(manifest, archive) == "proof", wrong


def test_the_lfs_files_of_a_proof_must_be_possible() -> None:
    archive, proof = PROVEN
    file = LfsFile(path="a.bin", sha256="a" * 64, size_bytes=1)
    sound = proven(archive, replace(proof, lfs_files=2, lfs=(file,)))
    assert find_invalid_field(sound, archive) is None
    for wrong in (
        replace(file, path="a\nb"),
        replace(file, sha256="a"),
        replace(file, size_bytes=-1),
    ):
        manifest = proven(archive, replace(proof, lfs_files=1, lfs=(wrong,)))
        assert find_invalid_field(manifest, archive) == "proof", wrong
    listed_more = proven(archive, replace(proof, lfs_files=0, lfs=(file,)))
    assert find_invalid_field(listed_more, archive) == "proof"


def test_a_proof_of_another_tree_makes_another_manifest() -> None:
    archive, proof = PROVEN
    assert proven(archive, replace(proof, tree="2" * 40)) != proven(archive, proof)


def test_an_object_that_archiver_does_not_write_has_no_archive() -> None:
    """Objects without a manifest may be deleted, if Archiver wrote them."""
    archive = replace(an_archive(), suffix="tar.gz")
    prefix, name = object_prefix(archive), archive.file_name
    assert parse_object_key(f"{prefix}0123456789abcdef-1/{name}") == archive
    assert parse_object_key(f"{prefix}0123456789abcdef/{name}") == archive
    for other in (
        f"{prefix}BACKUP/{name}",
        f"{prefix}notes 1/{name}",
        f"{prefix}0123456789abcdef-1/mybackup.tar.gz",
        f"{prefix}0123456789abcdef-1/more/{name}",
        f"{prefix}{name}",
        f"{prefix}0123456789abcdef-1/{name}".replace("tar.gz", "TAR.GZ"),
        f"{prefix}0123456789abcdef-1/{name}".removeprefix("archives/"),
    ):
        assert parse_object_key(other) is None, other
