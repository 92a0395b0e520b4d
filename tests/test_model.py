"""The laws of names: different archives share nothing, whatever characters their names contain."""

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archiver.errors import InvalidRequest
from archiver.model import (
    KEY_MAX_BYTES,
    STEM_MAX_CHARS,
    Archive,
    ArchiveRequest,
    Manifest,
    Node,
    PresignedUrl,
    Ready,
    Region,
    Verified,
    parse_key,
    parse_node,
    parse_task_id,
)
from archiver.names import require_name
from tests.memory_world import World

NODE = Node("0123456789abcdef0123456789abcdef01234567")


def allowed(segment: str) -> bool:
    try:
        require_name(segment, "repo")
    except InvalidRequest:
        return False
    return "/" not in segment


# Few and confusing characters, so that two names are often almost the same one.
tricky = st.text("aA-_.~:+ 2Fé@#%?", min_size=1, max_size=4)
printable = st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\")
segments = st.one_of(tricky, st.text(printable, min_size=1, max_size=8)).filter(allowed)
names = st.lists(segments, min_size=1, max_size=4).map("/".join)
nodes = st.builds(
    lambda digits, length: Node(digits.rjust(length, "0")),
    st.text("01", min_size=1, max_size=2),
    st.sampled_from((40, 64)),
)
archives = st.builds(
    Archive,
    source=segments,
    repo=names,
    node=nodes,
    subdir=st.one_of(st.just(""), names),
    suffix=st.sampled_from(["tar.gz", "zip", "tar"]) | segments,
    submodules=st.booleans(),
    lfs=st.booleans(),
)

patiently = settings(suppress_health_check=[HealthCheck.too_slow])
"""Without a deadline, since shared cores may be slow."""


@patiently
@given(archive=archives)
def test_a_key_parses_back_to_its_archive(archive: Archive) -> None:
    assert parse_key(archive.key) == archive


@patiently
@given(archive=archives)
def test_a_task_id_parses_back_to_its_archive(archive: Archive) -> None:
    assert parse_task_id(archive.task_id) == archive


@patiently
@given(one=archives, other=archives)
def test_different_archives_share_neither_key_nor_task_id_nor_key_hash(
    one: Archive, other: Archive
) -> None:
    same = one == other
    assert (one.key == other.key) == same
    assert (one.task_id == other.task_id) == same
    assert (one.key_hash == other.key_hash) == same


@patiently
@given(one=archives, other=archives)
def test_no_key_is_a_folder_of_another(one: Archive, other: Archive) -> None:
    assert not other.key.startswith(f"{one.key}/")


def test_a_subdir_cannot_pose_as_a_longer_repo() -> None:
    """The original service gave each of these pairs the same key."""
    short = Archive(source="hgmo", repo="a", node=NODE, subdir="b", suffix="tar.gz")
    for other in (
        Archive(source="hgmo", repo="a/b", node=NODE, subdir="", suffix="tar.gz"),
        Archive(source="hgmo", repo="a_b", node=NODE, subdir="", suffix="tar.gz"),
        Archive(source="hgmo", repo="a", node=NODE, subdir="", suffix="b"),
    ):
        assert short.key != other.key
        assert short.task_id != other.task_id


@patiently
@given(archive=archives)
def test_a_key_is_ascii_that_needs_no_escape_in_a_url(archive: Archive) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._~+/-]+", archive.key)
    assert re.fullmatch(r"[A-Za-z0-9._~+:-]+", archive.task_id)
    assert len(archive.key) <= KEY_MAX_BYTES


@pytest.mark.parametrize("subdir", ("", "a/b", "long/" * 40 + "path"))
def test_archives_that_differ_in_a_flag_have_different_file_names(subdir: str) -> None:
    plain = Archive(source="s", repo="r", node=NODE, subdir=subdir, suffix="zip")
    names = {
        replace(plain, submodules=submodules, lfs=lfs).file_name
        for submodules in (False, True)
        for lfs in (False, True)
    }
    assert len(names) == 4
    assert all(len(name) <= STEM_MAX_CHARS + len(".zip") for name in names)


@patiently
@given(archive=archives)
def test_a_file_name_is_a_plain_one(archive: Archive) -> None:
    stem = archive.file_name.removesuffix(f".{archive.suffix}")
    assert re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", stem)


@patiently
@given(text=st.text())
@example("v1")
@example(f"v1/hgmo/a/-/{NODE}/-/tar.gz/b")
@example(f"v2/hgmo/a/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE.upper()}/-/tar.gz")
@example(f"v1/hgmo/a~61/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/a~2Fb/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/a~FF/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/é/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/☃/-/{NODE}/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE}~lfs/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE}~submodules~lfs/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE}~lfs~lfs/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE}~/-/tar.gz")
@example(f"v1/hgmo/a/-/{NODE}~other/-/tar.gz")
def test_other_texts_do_not_parse_as_keys(text: str) -> None:
    archive = parse_key(text)
    assert archive is None or archive.key == text


def test_an_archive_without_other_files_has_the_key_of_earlier_versions() -> None:
    archive = Archive(source="git", repo="a", node=NODE, subdir="b", suffix="zip")
    assert archive.key == f"v1/git/a/-/{NODE}/b/-/zip"
    assert replace(archive, lfs=True).key == f"v1/git/a/-/{NODE}~lfs/b/-/zip"
    assert replace(archive, submodules=True).key == f"v1/git/a/-/{NODE}~submodules/b/-/zip"


def test_a_key_has_one_spelling() -> None:
    assert parse_key(f"v1/hgmo/~61/-/{NODE}/-/tar.gz") is None
    assert parse_key(f"v1/hgmo/a/-/{NODE}/-/tar.gz") is not None


@patiently
@given(text=st.text())
@example("")
@example("K" * 40)
@example("\N{KELVIN SIGN}" + "0" * 39)
@example("\N{FULLWIDTH DIGIT ONE}" * 40)
@example("K" * 64)
@example("a" * 64)
@example("a" * 41)
def test_only_40_or_64_hex_digits_are_a_node(text: str) -> None:
    hex_digits = re.fullmatch(r"[0-9a-fA-F]*", text) is not None
    assert (parse_node(text) is not None) == (hex_digits and len(text) in {40, 64})


def test_a_node_has_one_spelling() -> None:
    assert parse_node(NODE.upper()) == NODE


def test_a_request_that_fits_into_no_key_is_refused() -> None:
    long = "/".join(["x" * 250] * 3)
    with pytest.raises(InvalidRequest) as of_repo:
        ArchiveRequest(source="hgmo", repo=long, rev="tip", subdir="", suffix="zip")
    with pytest.raises(InvalidRequest) as of_subdir:
        ArchiveRequest(source="hgmo", repo="a", rev="tip", subdir=long, suffix="zip")
    assert (of_repo.value.parameter, of_subdir.value.parameter) == ("repo", "subdir")


def test_a_key_does_not_contain_the_rev() -> None:
    wanted = ArchiveRequest(source="hgmo", repo="a", rev="REL/2.0 #@?", subdir="", suffix="zip")
    assert wanted.archive_at(NODE).key == f"v1/hgmo/a/-/{NODE}/-/zip"


@pytest.mark.parametrize(
    "node", ("", "0" * 39, "0" * 41, "0" * 63, "0" * 65, "G" * 40, NODE.upper())
)
def test_an_archive_needs_a_whole_node(node: str) -> None:
    with pytest.raises(InvalidRequest):
        Archive(source="hgmo", repo="a", node=Node(node), subdir="", suffix="zip")


def test_a_presigned_url_is_not_in_the_text_of_a_hit() -> None:
    world = World()
    archive = world.archive()
    ready = Ready(
        archive=archive,
        manifest=Manifest(
            key=archive.key,
            node=archive.node,
            sha256="0" * 64,
            size_bytes=1,
            object_key="k",
            root="r",
            source_url="u",
            created_at=datetime.now(UTC),
        ),
        region=Region("r"),
        requested_region=None,
        url=PresignedUrl("https://s3.example/?X-Amz-Signature=secret"),
    )
    assert "secret" not in repr(ready)


def test_only_verifiers_create_verified() -> None:
    with pytest.raises(TypeError):
        Verified()  # type: ignore[call-arg]
