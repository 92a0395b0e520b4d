"""Records of complete archives: what they prove, and forged ones that prove nothing."""

import asyncio
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from archiver.errors import WrongTree
from archiver.formats.commit_proof import CommitProof, prove_commit
from archiver.formats.record_check import Verdict
from archiver.git_objects import (
    CompleteRecord,
    RepositoryRecord,
    decode_record,
    object_id,
)
from archiver.git_objects.lfs_pointer import Pointer, parse_pointer
from archiver.git_objects.recorded_lfs import RecordedLfs, gaps_between
from archiver.model import Node
from tests.git_repositories import Files, GitRepository, create, submodule

ROOT = "project-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A superproject with the submodule ``lib``, which has ``in``, and their record."""

    outer: GitRepository
    node: str
    record: CompleteRecord
    files: dict[str, bytes]


def record_of(repository: GitRepository, node: str, path: str = "") -> RepositoryRecord:
    commit = repository.git_bytes("cat-file", "commit", node)
    return RepositoryRecord(path=path.encode(), commit=commit)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    inner = create(tmp_path / "inner.git")
    inner_node = inner.commit({"f": b"inner\n"})
    lib = create(tmp_path / "lib.git")
    lib_node = lib.commit({"a": b"lib\n", "in": submodule(inner_node)})
    outer = create(tmp_path / "outer.git")
    node = outer.commit({"a": b"outer\n", "lib": submodule(lib_node), "z": b"last\n"})
    return Made(
        outer=outer,
        node=node,
        record=CompleteRecord(
            repositories=(
                record_of(outer, node),
                record_of(lib, lib_node, "lib"),
                record_of(inner, inner_node, "lib/in"),
            )
        ),
        files={
            "": b"",
            "a": b"outer\n",
            "lib/": b"",
            "lib/a": b"lib\n",
            "lib/in/": b"",
            "lib/in/f": b"inner\n",
            "z": b"last\n",
        },
    )


def tar_of(files: dict[str, bytes], record: CompleteRecord) -> bytes:
    """Return a tar of *files* in their order; a name with a slash at the end is a folder."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, content) in enumerate(files.items()):
            member = tarfile.TarInfo(f"{ROOT}/{name}".rstrip("/"))
            member.mode = 0o644
            if not name or name.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.size = len(content)
            if not number:
                member.pax_headers = {"comment": record.encode().decode()}
            tar.addfile(member, io.BytesIO(content))
    return output.getvalue()


def prove(
    folder: Path, node: str, files: dict[str, bytes], record: CompleteRecord, subdir: str = ""
) -> CommitProof:
    path = folder / "made.tar"
    path.write_bytes(tar_of(files, record))
    return asyncio.run(prove_commit(path, node=Node(node), subdir=subdir))


def without(record: CompleteRecord, path: bytes) -> CompleteRecord:
    kept = tuple(each for each in record.repositories if each.path != path)
    return CompleteRecord(repositories=kept)


def test_a_record_proves_all_repositories(made: Made, tmp_path: Path) -> None:
    proof = prove(tmp_path, made.node, made.files, made.record)
    assert proof.verdict is Verdict.PROVEN
    assert [(part.path, part.verdict) for part in proof.parts] == [
        ("lib", Verdict.PROVEN),
        ("lib/in", Verdict.PROVEN),
    ]
    assert decode_record(made.record.encode()) == made.record


@pytest.mark.parametrize("name", ("a", "lib/a", "lib/in/f", "z"))
def test_one_other_file_is_found_and_its_part_named(made: Made, tmp_path: Path, name: str) -> None:
    proof = prove(tmp_path, made.node, {**made.files, name: b"other\n"}, made.record)
    assert proof.verdict is Verdict.DIFFERS
    differing = [part.path for part in proof.parts if part.verdict is Verdict.DIFFERS]
    assert differing == {"lib/a": ["lib"], "lib/in/f": ["lib/in"]}.get(name, [])


@pytest.mark.parametrize("name", ("a", "lib/", "lib/a", "lib/in/", "lib/in/f", "z"))
def test_a_missing_member_is_found(made: Made, tmp_path: Path, name: str) -> None:
    """Also the folder of a submodule: without it, its files count as those around it."""
    files = {each: content for each, content in made.files.items() if each != name}
    assert prove(tmp_path, made.node, files, made.record).verdict is Verdict.DIFFERS


@pytest.mark.parametrize("after", ("", "a", "lib/a", "lib/in/f", "z"))
@pytest.mark.parametrize("name", ("b", "lib/b", "lib/in/b", "lib/in.d/b", "lib2/b"))
def test_a_further_file_is_found_wherever_it_stands(
    made: Made, tmp_path: Path, name: str, after: str
) -> None:
    files = {}
    for each, content in made.files.items():
        files[each] = content
        if each == after:
            files[name] = b"further\n"
    assert prove(tmp_path, made.node, files, made.record).verdict is Verdict.DIFFERS


def test_a_submodule_that_is_not_recorded_is_not_its_commit(made: Made, tmp_path: Path) -> None:
    for path in (b"lib", b"lib/in"):
        proof = prove(tmp_path, made.node, made.files, without(made.record, path))
        assert proof.verdict is Verdict.DIFFERS


def test_a_commit_that_the_tree_does_not_name_proves_nothing(made: Made, tmp_path: Path) -> None:
    """A forger can record any commit for a submodule, and pack its files."""
    evil = create(tmp_path / "evil.git")
    evil_node = evil.commit({"a": b"evil\n"})
    outer, _, _ = made.record.repositories
    forged = CompleteRecord(repositories=(outer, record_of(evil, evil_node, "lib")))
    files = {"": b"", "a": b"outer\n", "lib/": b"", "lib/a": b"evil\n", "z": b"last\n"}
    proof = prove(tmp_path, made.node, files, forged)
    assert proof.verdict is Verdict.DIFFERS
    claimed = CompleteRecord(
        repositories=(
            msgspec.structs.replace(outer, submodules=((b"lib", made.node),)),
            record_of(evil, evil_node, "lib"),
        )
    )
    assert prove(tmp_path, made.node, files, claimed).verdict is Verdict.DIFFERS


def test_another_superproject_contradicts_the_node(made: Made, tmp_path: Path) -> None:
    other = made.outer.commit({"a": b"x\n"})
    proof = prove(tmp_path, other, made.files, made.record)
    assert proof.verdict is Verdict.CONTRADICTS


def test_a_record_that_does_not_lead_to_the_subdir_contradicts(made: Made, tmp_path: Path) -> None:
    outer, lib, inner = made.record.repositories
    tree = made.outer.git_bytes("cat-file", "tree", f"{made.node}^{{tree}}")
    leading = msgspec.structs.replace(outer, trees=(tree,))
    files = {"lib/a": b"lib\n"}
    lib_tree = GitRepository(made.outer.path.parent / "lib.git").git_bytes(
        "cat-file", "tree", tree_of(lib)
    )
    inside = msgspec.structs.replace(lib, trees=(lib_tree,))
    good = CompleteRecord(repositories=(leading, inside))
    assert prove(tmp_path, made.node, files, good, "lib/a").verdict is Verdict.PROVEN
    for repositories in (
        (outer, inside),
        (leading, lib),
        (leading, msgspec.structs.replace(inner, path=b"lib")),
        (leading,),
    ):
        record = CompleteRecord(repositories=repositories)
        proof = prove(tmp_path, made.node, files, record, "lib/a")
        assert proof.verdict is Verdict.CONTRADICTS, repositories


def tree_of(record: RepositoryRecord) -> str:
    return record.commit.split(b"\n")[0].split()[1].decode()


@pytest.mark.parametrize(
    "repositories",
    (
        (),
        (RepositoryRecord(path=b"a", commit=b""),),
        (RepositoryRecord(path=b"", commit=b""), RepositoryRecord(path=b"", commit=b"")),
        (RepositoryRecord(path=b"", commit=b""), RepositoryRecord(path=b"a/../b", commit=b"")),
        (RepositoryRecord(path=b"", commit=b""), RepositoryRecord(path=b"a/", commit=b"")),
        (RepositoryRecord(path=b"", commit=b"", lfs=(-1,)),),
        (RepositoryRecord(path=b"", commit=b"", submodules=((b"..", "1"),)),),
    ),
)
def test_an_impossible_record_is_none(repositories: tuple[RepositoryRecord, ...]) -> None:
    assert decode_record(CompleteRecord(repositories=repositories).encode()) is None


CONTENT = b"large\n" * 100
POINTER = Pointer(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def lfs_world(folder: Path, pointer: bytes) -> tuple[str, RepositoryRecord]:
    repository = create(folder / "lfs.git")
    files: Files = {"a": b"a\n", "b.bin": pointer, "c": b"c\n", "d.bin": pointer}
    node = repository.commit(files)
    return node, record_of(repository, node)


def test_lfs_files_stand_for_their_pointers(tmp_path: Path) -> None:
    node, record = lfs_world(tmp_path, POINTER.text)
    files = {"": b"", "a": b"a\n", "b.bin": CONTENT, "c": b"c\n", "d.bin": CONTENT}
    marked = msgspec.structs.replace(record, lfs=(1, 1))
    proof = prove(tmp_path, node, files, CompleteRecord(repositories=(marked,)))
    assert proof.verdict is Verdict.PROVEN
    assert proof.lfs_files == 2
    for wrong in ((), (1,), (0, 1), (1, 2), (1, 0, 0), (10**30,)):
        marked = msgspec.structs.replace(record, lfs=wrong)
        proof = prove(tmp_path, node, files, CompleteRecord(repositories=(marked,)))
        assert proof.verdict is Verdict.DIFFERS
    other = {**files, "d.bin": CONTENT + b"x"}
    marked = msgspec.structs.replace(record, lfs=(1, 1))
    proof = prove(tmp_path, node, other, CompleteRecord(repositories=(marked,)))
    assert proof.verdict is Verdict.DIFFERS


def test_a_recorded_pointer_must_name_the_content() -> None:
    """Otherwise, a forger could record the pointer of the commit for any content."""
    unusual = POINTER.text.replace(b"\n", b" \n")
    lfs = RecordedLfs((0,), pointers={0: unusual}, digits=40)
    assert lfs.replaces(b"a")
    if parse_pointer(unusual) == POINTER:
        assert lfs.pointer_id(b"a", POINTER.sha256, POINTER.size_bytes) == object_id(
            "blob", unusual, digits=40
        )
    forged = RecordedLfs((0,), pointers={0: POINTER.text}, digits=40)
    assert forged.replaces(b"a")
    with pytest.raises(WrongTree):
        forged.pointer_id(b"a", "0" * 64, POINTER.size_bytes)


def test_gaps_count_the_other_files() -> None:
    assert gaps_between([]) == ()
    assert gaps_between([True, False, False, True, True, False]) == (0, 2, 0)
