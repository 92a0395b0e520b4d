"""Stored manifests cannot refer to another archive, or inject a header."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.git_objects import object_id
from archiver.manifest_check import (
    OBJECT_MAX_BYTES,
    find_invalid_field,
    object_prefix,
    parse_object_key,
)
from archiver.model import (
    COMMIT_MAX_BYTES,
    Archive,
    Conversion,
    Manifest,
    Node,
    TreeMatch,
    TreeProof,
)
from archiver.ports.storage import Commit, Upload
from archiver.sealing import seal
from archiver.storage.bucket import MANIFEST_MAX_BYTES

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


def test_a_proof_of_another_tree_makes_another_manifest() -> None:
    archive, proof = PROVEN
    assert proven(archive, replace(proof, tree="2" * 40)) != proven(archive, proof)


@pytest.mark.parametrize(
    "change",
    (
        {"commit": b"tree 1\n"},
        {"commit": bytes(COMMIT_MAX_BYTES + 1)},
        {"tree": "1" * 39},
        {"tree": "1" * 64},
        {"tree": "A" * 40},
        {"tree": "a\r\nSet-Cookie: b".ljust(40)},
    ),
)
def test_a_proof_of_another_commit_or_form_is_invalid(change: dict[str, object]) -> None:
    archive, proof = PROVEN
    changed = replace(proof, **change)  # type: ignore[arg-type]
    assert find_invalid_field(proven(archive, changed), archive) == "proof"
    assert find_invalid_field(proven(OTHER, proof), OTHER) == "proof"


@pytest.mark.parametrize(
    ("size", "kept"), ((COMMIT_MAX_BYTES, True), (COMMIT_MAX_BYTES + 1, False))
)
def test_a_manifest_leaves_out_a_commit_that_is_too_long(size: int, kept: bool) -> None:  # noqa: FBT001
    commit = b"tree 1\n".ljust(size, b"x")
    archive = replace(ARCHIVE, node=Node(object_id("commit", commit, digits=40)))
    manifest = Commit(
        archive=archive,
        upload=Upload(object_key=f"{object_prefix(archive)}a1-1/x.zip", regions=()),
        verified=seal(sha256="a" * 64, size_bytes=4, root="a"),
        source_url="https://git.example/a.git",
        proof=TreeProof(commit=commit, tree="1" * 40, match=TreeMatch.EXACT),
    ).new_manifest()
    assert find_invalid_field(manifest, archive) is None
    assert manifest.proof
    assert bool(manifest.proof.commit) == kept
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    assert len(body) < MANIFEST_MAX_BYTES
    decoded = msgspec.json.decode(body, type=Manifest)
    assert decoded.proof
    assert decoded.proof.commit == manifest.proof.commit


def test_a_manifest_of_an_earlier_version_has_no_proof() -> None:
    document = msgspec.to_builtins(SOUND)
    del document["proof"]
    decoded = msgspec.json.decode(msgspec.json.encode(document), type=Manifest)
    assert decoded == SOUND
    assert find_invalid_field(decoded, ARCHIVE) is None


def test_an_object_key_of_an_earlier_version_is_valid() -> None:
    earlier = replace(SOUND, object_key=f"{PREFIX}a1/{ARCHIVE.file_name}")
    assert find_invalid_field(earlier, ARCHIVE) is None


@pytest.mark.parametrize(
    ("field", "value"),
    (
        ("key", OTHER.key),
        ("node", OTHER.node),
        ("sha256", "A" * 64),
        ("sha256", "a" * 63),
        ("sha256", "a" * 64 + "\n"),
        ("sha256", "a\r\nSet-Cookie: b"),
        ("size_bytes", -1),
        ("size_bytes", OBJECT_MAX_BYTES + 1),
        ("object_key", "private/backup.tar.gz"),
        ("object_key", f"manifests/{ARCHIVE.key}.json"),
        ("object_key", f"{object_prefix(OTHER)}a1/x.zip"),
        ("object_key", PREFIX),
        ("object_key", f"{PREFIX}x.zip"),
        ("object_key", f"{PREFIX}a1/b/x.zip"),
        ("object_key", f"{PREFIX}../x.zip"),
        ("object_key", f"{PREFIX}a1/../x.zip"),
        ("object_key", f"{PREFIX}a1/.."),
        ("object_key", f"{PREFIX}a1/x.zip\n"),
        ("object_key", f"{PREFIX}a1/x%2Fzip?a"),
        ("root", ""),
        ("root", ".."),
        ("root", "a/b"),
        ("root", "a\nb"),
        ("source_url", "https://hg.example/\r\nX: y"),
        ("source_url", "https://hg.example/\x1b[2J"),
        ("source_url", "https://hg.example/a b"),
        ("source_url", "javascript:alert(1)"),
        ("source_url", "https://" + "a" * 9000),
        ("created_at", datetime(2026, 1, 1)),  # noqa: DTZ001 - a time of nowhere
        ("created_at", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))),
        ("created_at", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))),
        ("completeness", "a\r\nb"),
        ("links_outside", -5),
        ("links_outside", 10**300),
        ("conversion", replace(CONVERSION, key="nobody's")),
        ("conversion", replace(CONVERSION, sha256="b")),
        ("conversion", replace(CONVERSION, size_bytes=-1)),
        ("conversion", replace(CONVERSION, converter="a\r\nb")),
    ),
)
def test_the_first_invalid_field_is_named(field: str, value: object) -> None:
    assert find_invalid_field(replace(SOUND, **{field: value}), ARCHIVE) == field  # type: ignore[arg-type]


@given(tail=st.text())
def test_no_object_outside_its_prefix_belongs_to_an_archive(tail: str) -> None:
    manifest = replace(SOUND, object_key=f"{PREFIX}{tail}")
    if find_invalid_field(manifest, ARCHIVE) is None:
        attempt, name = tail.split("/")
        assert {".", "..", ""}.isdisjoint((attempt, name))
        assert tail.isascii()
        assert tail.isprintable()


@pytest.mark.parametrize("tail", ("a1-1/x.zip", "a1/x.zip"))
def test_the_key_of_an_object_names_its_archive(tail: str) -> None:
    assert parse_object_key(f"{PREFIX}{tail}") == ARCHIVE


@pytest.mark.parametrize(
    "object_key",
    (
        "",
        "archives/x",
        PREFIX,
        f"{PREFIX}x.zip",
        f"{PREFIX}a1/b/x.zip",
        f"{PREFIX}a1/.x",
        f"{PREFIX}a1/",
        f"manifests/{ARCHIVE.key}.json",
        f"{ARCHIVE.key}/a1-1/x.zip",
    ),
)
def test_other_keys_name_no_archive(object_key: str) -> None:
    assert parse_object_key(object_key) is None
