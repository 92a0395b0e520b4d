"""A record is proven by ids alone, and encoded in one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import WrongNode, WrongTree
from archiver.git_objects import (
    RECORD_MAX_BYTES,
    CommitRecord,
    TreeHasher,
    decode_record,
    expected_entry,
    object_id,
    parse_tree,
    tree_of,
)

FILE_ID = "ab" * 20
INNER = b"100755 run\0" + bytes.fromhex(FILE_ID)
INNER_ID = object_id("tree", INNER, digits=40)
OUTER = b"100644 a\0" + bytes.fromhex(FILE_ID) + b"40000 sub\0" + bytes.fromhex(INNER_ID)
OUTER_ID = object_id("tree", OUTER, digits=40)
COMMIT = b"tree %s\nauthor Ann\n\nmessage\n" % OUTER_ID.encode()
NODE = object_id("commit", COMMIT, digits=40)

NO_PATHS = (b"", b"/", b"a/", b"/a", b"a//b", b".", b"..", b"a/./b", b"a/../b", b"a\0b")
segments = st.binary(min_size=1, max_size=4).filter(
    lambda name: name not in {b".", b".."} and not {*b"/\0"} & {*name}
)
paths = st.lists(segments, min_size=1, max_size=3).map(b"/".join)
records = st.builds(
    CommitRecord,
    commit=st.binary(max_size=60),
    trees=st.lists(st.binary(max_size=30), max_size=3).map(tuple),
    submodules=st.lists(st.tuples(paths, st.text(max_size=9)), max_size=3).map(tuple),
)


def record(*trees: bytes) -> CommitRecord:
    return CommitRecord(commit=COMMIT, trees=trees)


@given(records)
def test_an_encoded_record_decodes_to_itself(each: CommitRecord) -> None:
    line = each.encode()
    assert b"\n" not in line
    assert b"\0" not in line
    assert decode_record(line) == each


def test_an_encoded_record_is_ascii() -> None:
    assert CommitRecord(commit=b"\xff\0\n", submodules=((b"\xfe", FILE_ID),)).encode().isascii()


@given(st.binary(max_size=80))
def test_other_lines_are_no_records(line: bytes) -> None:
    assert decode_record(line) is None


@given(records, st.data())
def test_a_changed_line_is_no_record_or_another_one(
    each: CommitRecord, data: st.DataObject
) -> None:
    line = bytearray(each.encode())
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    assert decode_record(bytes(line)) != each


@pytest.mark.parametrize(
    "line",
    (
        b"{}",
        b"[" * 100_000,
        b'{"archiver":"commit-2","commit":"","trees":[],"submodules":[]}',
        b'{"archiver":"commit-1","commit":"","trees":[],"submodules":[],"more":1}',
        b'{"archiver":"commit-1","commit":"!","trees":[],"submodules":[]}',
        b' {"archiver":"commit-1","commit":"","trees":[],"submodules":[]}',
    ),
)
def test_a_line_of_another_form_is_no_record(line: bytes) -> None:
    assert decode_record(line) is None


@pytest.mark.parametrize("path", NO_PATHS)
def test_a_submodule_with_a_path_that_no_tree_has_is_no_record(path: bytes) -> None:
    sound = CommitRecord(commit=COMMIT, submodules=((b"a/b", FILE_ID),))
    assert decode_record(sound.encode()) == sound
    odd = CommitRecord(commit=COMMIT, submodules=((b"a/b", FILE_ID), (path, FILE_ID)))
    assert decode_record(odd.encode()) is None


def test_the_root_is_no_submodule() -> None:
    hasher = TreeHasher(digits=40, subdir=b"", submodules={b"": FILE_ID}, on_entry=lambda *_: None)
    hasher.add_folder(b"")
    assert hasher.finish() == object_id("tree", b"", digits=40)


def test_a_record_that_is_too_long_is_none() -> None:
    long = CommitRecord(commit=bytes(RECORD_MAX_BYTES)).encode()
    assert len(long) > RECORD_MAX_BYTES
    assert decode_record(long) is None


def test_the_whole_tree_is_the_one_that_the_commit_names() -> None:
    assert expected_entry(record(), NODE, "") == (0o40000, OUTER_ID)
    assert expected_entry(record(OUTER), NODE, "") == (0o40000, OUTER_ID)


def test_a_part_is_found_through_the_trees_above_it() -> None:
    assert expected_entry(record(OUTER), NODE, "sub") == (0o40000, INNER_ID)
    assert expected_entry(record(OUTER, INNER), NODE, "sub") == (0o40000, INNER_ID)
    assert expected_entry(record(OUTER, INNER), NODE, "sub/run") == (0o100755, FILE_ID)


def test_another_commit_is_refused() -> None:
    with pytest.raises(WrongNode):
        expected_entry(record(), "f" * 40, "")
    with pytest.raises(WrongNode):
        expected_entry(CommitRecord(commit=COMMIT + b"\n"), NODE, "")


@pytest.mark.parametrize(
    ("trees", "subdir"),
    (
        ((INNER,), ""),
        ((OUTER + INNER,), ""),
        ((), "sub"),
        ((INNER,), "sub"),
        ((OUTER, OUTER), "sub/run"),
        ((OUTER,), "none"),
        ((OUTER,), "a/b"),
        ((OUTER, INNER), "a/b"),
        ((OUTER, INNER, INNER), "sub"),
        ((OUTER, INNER), "none"),
        ((OUTER, b""), "a"),
    ),
)
def test_trees_that_do_not_lead_to_the_part_are_refused(
    trees: tuple[bytes, ...], subdir: str
) -> None:
    with pytest.raises(WrongTree):
        expected_entry(record(*trees), NODE, subdir)


@pytest.mark.parametrize("commit", (b"", b"tree \n", b"tree " + b"a" * 64 + b"\n", b"parent a\n"))
def test_a_commit_without_a_tree_is_refused(commit: bytes) -> None:
    with pytest.raises(WrongTree):
        tree_of(commit, digits=40)


@given(st.binary(max_size=120))
def test_any_bytes_are_a_tree_or_refused(raw: bytes) -> None:
    try:
        entries = list(parse_tree(raw, digits=40))
    except WrongTree:
        return
    assert b"".join(
        b"%o %s\0%s" % (mode, name, bytes.fromhex(key)) for mode, name, key in entries
    ).replace(b"0", b"") == raw.replace(b"0", b"")


@pytest.mark.parametrize("size", range(1, len(OUTER)))
def test_a_truncated_tree_is_refused(size: int) -> None:
    raw = OUTER[:size]
    if size != OUTER.index(b"40000 "):
        with pytest.raises(WrongTree):
            list(parse_tree(raw, digits=40))
