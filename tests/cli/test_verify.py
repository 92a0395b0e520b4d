"""``archiver verify`` proves archives offline, and ``archiver get`` what it downloads."""

import asyncio
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from archiver.git_objects import CommitRecord
from archiver.model import SUFFIXES, Archive
from tests.formats import samples
from tests.formats.git_trees import FILES, ROOT, record_of
from tests.formats.samples import COMPRESS, GOOD
from tests.formats.test_comments import Carried, converted
from tests.formats.test_tree_check import archive_at, injected, members_of, packed
from tests.parts.commands import Run
from tests.parts.git_program import ENVIRONMENT, Files, GitRepository, commit_files
from tests.parts.json_output import documents
from tests.parts.scripted_server import Response, ScriptedServer
from tests.parts.thorough import thorough

PROVEN, UNPROVABLE, WRONG = 0, 3, 5
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "prove-an-archive.md"


class Made:
    """Archives of a commit as Archiver makes them, in a folder of their own."""

    def __init__(self, folder: Path, files: Files, *, digits: int = 40) -> None:
        self.repository = GitRepository(folder / "repository", digits=digits)
        self.node = commit_files(self.repository, files)
        self.files = files
        self.folder = folder

    def record(self, subdir: str = "") -> CommitRecord:
        return record_of(self.repository, self.node, self.files, subdir)

    def tar(self, subdir: str = "", record: CommitRecord | None = None) -> bytes:
        paths = (subdir,) if subdir else ()
        archived = self.repository.archive(self.node, *paths, root=ROOT)
        return asyncio.run(injected(archived, record or self.record(subdir), subdir))

    def write(self, data: bytes, suffix: str = "tar", subdir: str = "") -> str:
        """Write the tar *data*, converted, and return the path."""
        original, target = self._archive("tar", subdir), self._archive(suffix, subdir)
        made = asyncio.run(converted(data, original, target, self.folder / "work"))
        return self.write_plain(made, suffix)

    def write_plain(self, data: bytes, suffix: str = "tar") -> str:
        path = self.folder / f"archive.{suffix}"
        path.write_bytes(data)
        return str(path)

    def _archive(self, suffix: str, subdir: str) -> Archive:
        return archive_at(self.node, suffix=suffix, subdir=subdir)


QUICK = {"tar.gz", "zip"}
EACH_SUFFIX = (*sorted(QUICK), *thorough(*sorted(set(SUFFIXES) - QUICK)))
UTF_8 = {path: file for path, file in FILES.items() if b"\xff" not in path}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path, UTF_8)


@pytest.mark.parametrize("suffix", EACH_SUFFIX)
def test_an_archive_is_proven_in_every_format(run: Run, made: Made, suffix: str) -> None:
    path = made.write(made.tar(), suffix)
    result = run("verify", path, "--node", made.node)
    assert result.exit_code == PROVEN, result.output
    assert result.stdout == f"proven: {path} has exactly the files of commit {made.node}\n"


@pytest.mark.parametrize("suffix", EACH_SUFFIX)
def test_a_name_that_is_not_utf_8_is_proven_except_in_a_zip(
    run: Run, tmp_path: Path, suffix: str
) -> None:
    """Readers of a zip decode such a name with one code page or another."""
    made = Made(tmp_path, FILES)
    result = run("verify", made.write(made.tar(), suffix), "--node", made.node)
    assert result.exit_code == (UNPROVABLE if suffix == "zip" else PROVEN), result.output
    assert ("not marked as UTF-8" in result.stderr) is (suffix == "zip")


@pytest.mark.parametrize("system", (0, *thorough(1, 2, 11, 19)))
@pytest.mark.parametrize("nth", (0, *thorough(-1)))
def test_a_zip_with_modes_of_another_system_is_not_proven(
    run: Run, made: Made, system: int, nth: int
) -> None:
    path = Path(made.write(made.tar(), "zip"))
    data = bytearray(path.read_bytes())
    starts = [found.start() for found in re.finditer(rb"PK\x01\x02\x14\x03", data)]
    assert len(starts) > len(UTF_8)
    data[starts[nth] + 5] = system
    path.write_bytes(data)
    result = run("verify", str(path), "--node", made.node)
    assert result.exit_code in {UNPROVABLE, WRONG}
    assert "system" in result.stderr


def test_a_pipe_is_refused(run: Run, tmp_path: Path) -> None:
    pipe = tmp_path / "archive"
    os.mkfifo(pipe)
    result = run("verify", str(pipe), "--node", "f" * 40)
    assert result.exit_code == 2
    assert "must be a regular file" in result.stderr


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_an_archive_of_a_sha256_repository_is_proven(run: Run, tmp_path: Path, suffix: str) -> None:
    carried = Carried(tmp_path, digits=64, files=UTF_8)
    path = tmp_path / "archive"
    path.write_bytes(carried.convert(carried.tar, "tar", suffix))
    assert run("verify", str(path), "--node", carried.node).exit_code == PROVEN


@pytest.mark.parametrize("suffix", ("tar.zst", "zip"))
@pytest.mark.parametrize("subdir", ("a/deep", *thorough("a", "a/deep/er/run.sh")))
def test_a_part_of_a_tree_is_proven(run: Run, made: Made, suffix: str, subdir: str) -> None:
    path = made.write(made.tar(subdir), suffix, subdir)
    assert run("verify", path, "--node", made.node, "--subdir", subdir).exit_code == PROVEN
    assert run("verify", path, "--node", made.node).exit_code == WRONG
    assert run("verify", path, "--node", made.node, "--subdir", "vendor").exit_code == WRONG


def test_the_result_as_json(run: Run, made: Made) -> None:
    path = made.write(made.tar(), "tar.gz")
    result = run("verify", path, "--node", made.node.upper(), "--json")
    tree = made.repository.run("rev-parse", f"{made.node}^{{tree}}").decode().strip()
    assert json.loads(result.stdout) == {
        "file": path,
        "node": made.node,
        "subdir": "",
        "format": "tar.gz",
        "verdict": "proven",
        "reason": "it has exactly the files of the commit",
        "tree": tree,
        "expected": tree,
        "paths": [],
        "parts": [],
        "lfs_files": 0,
    }


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_another_commit_is_refused(run: Run, made: Made, suffix: str) -> None:
    path = made.write(made.tar(), suffix)
    result = run("verify", path, "--node", "f" * 40)
    assert result.exit_code == WRONG
    assert "not the requested one" in result.stderr


def changed(data: bytes, suffix: str) -> bytes:
    """Return an archive with another README, and everything else as before."""
    if suffix == "zip":
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(data)) as before,
            zipfile.ZipFile(buffer, "w") as after,
        ):
            after.comment = before.comment
            for info in before.infolist():
                content = before.read(info)
                after.writestr(info, b"READ me\n" if content == b"read me\n" else content)
        return buffer.getvalue()
    return data.replace(b"read me\n", b"READ me\n")


@pytest.mark.parametrize("suffix", ("tar", "zip"))
def test_changed_content_is_found(run: Run, made: Made, suffix: str) -> None:
    path = Path(made.write(made.tar(), suffix))
    path.write_bytes(changed(path.read_bytes(), suffix))
    result = run("verify", str(path), "--node", made.node, "--json")
    assert result.exit_code == WRONG, result.output
    (document,) = documents(result.stdout)
    assert document["verdict"] == "differs"
    assert document["tree"] != document["expected"]
    assert "another id" in result.stderr


def test_the_paths_that_differ_are_listed_if_the_record_has_the_tree(run: Run, made: Made) -> None:
    record = made.record()
    root = made.repository.read("tree", f"{made.node}^{{tree}}")
    data = changed(made.tar(record=msgspec.structs.replace(record, trees=(root,))), "tar")
    result = run("verify", made.write(data), "--node", made.node, "--json")
    assert result.exit_code == WRONG, result.output
    assert documents(result.stdout)[0]["paths"] == ["README"]
    assert "these differ: README" in result.stderr


def test_a_file_whose_mode_changed_is_found(run: Run, made: Made) -> None:
    subdir = "a/deep/er/run.sh"
    ((info, content),) = members_of(made.tar(subdir))
    info.mode = 0o644
    path = made.write(packed([(info, content)]), "tar", subdir)
    assert run("verify", path, "--node", made.node, "--subdir", subdir).exit_code == WRONG


def test_an_archive_without_a_record_is_unprovable(run: Run, made: Made) -> None:
    path = made.write(made.repository.archive(made.node, root=ROOT), "tar.gz")
    result = run("verify", path, "--node", made.node)
    assert result.exit_code == UNPROVABLE
    assert "its comment names this commit, but it has no commit record" in result.stderr
    result = run("verify", path, "--node", "f" * 40)
    assert result.exit_code == WRONG
    assert f"it names {made.node}" in result.stderr


@pytest.mark.parametrize("suffix", samples.SUFFIXES)
def test_an_archive_of_mercurial_names_its_changeset_and_proves_nothing(
    run: Run, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "archive"
    path.write_bytes(GOOD[suffix])
    result = run("verify", str(path), "--node", samples.NODE)
    assert result.exit_code == UNPROVABLE
    assert ".hg_archival.txt names this changeset, but nothing in it proves" in result.stderr
    assert run("verify", str(path), "--node", "f" * 40).exit_code == WRONG


def test_an_archive_of_anything_is_unprovable(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(COMPRESS["tar.xz"](samples.tar({"a/b": b"c"})))
    result = run("verify", str(path), "--node", "f" * 40)
    assert result.exit_code == UNPROVABLE
    assert "it has no commit record" in result.stderr


@pytest.mark.parametrize(
    "attributes", (b"README export-subst\n", b"/.gitattributes export-ignore\n")
)
def test_what_attributes_changed_is_unprovable_or_differs(
    run: Run, tmp_path: Path, attributes: bytes
) -> None:
    files = {
        b".gitattributes": (0o100644, attributes),
        b"README": (0o100644, b"$Format:%H$\n"),
    }
    made = Made(tmp_path, files)
    result = run("verify", made.write(made.tar()), "--node", made.node)
    if b"export-subst" in attributes:
        assert result.exit_code == UNPROVABLE
        assert ".gitattributes of the repository may explain" in result.stderr
    else:  # nothing in the archive shows that there were attributes
        assert result.exit_code == WRONG


def test_attributes_that_are_known_from_the_tree_may_explain_a_difference(
    run: Run, tmp_path: Path
) -> None:
    files = {
        b".gitattributes": (0o100644, b"/.gitattributes export-ignore\n"),
        b"README": (0o100644, b"read me\n"),
    }
    made = Made(tmp_path, files)
    root = made.repository.read("tree", f"{made.node}^{{tree}}")
    record = msgspec.structs.replace(made.record(), trees=(root,))
    result = run("verify", made.write(made.tar(record=record)), "--node", made.node)
    assert result.exit_code == UNPROVABLE
    assert "these differ: .gitattributes" in result.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", (0.3, 0.9))
def test_a_truncated_archive_is_refused(run: Run, made: Made, suffix: str, keep: float) -> None:
    path = Path(made.write(made.tar(), suffix))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    result = run("verify", str(path), "--node", made.node)
    assert result.exit_code == WRONG
    assert "_archive: " in result.stderr


def test_a_hostile_archive_is_refused(run: Run, made: Made) -> None:
    members = members_of(made.tar())
    evil = tarfile.TarInfo(f"{ROOT}/../evil")
    result = run("verify", made.write_plain(packed([*members, (evil, b"")])), "--node", made.node)
    assert result.exit_code == WRONG
    assert "unsafe_member" in result.stderr


@pytest.mark.parametrize(
    ("content", "code"),
    (
        (b"", "not_an_archive"),
        (b"text\n" * 200, "not_an_archive"),
        (b"PK\3\4", "truncated_archive"),
    ),
)
def test_what_is_no_archive_is_refused(run: Run, tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "archive"
    path.write_bytes(content)
    result = run("verify", str(path), "--node", "f" * 40)
    assert result.exit_code == WRONG
    assert code in result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    (
        (("--node", "abc"), 2),
        (("--node", "f" * 40, "--subdir", "../x"), 2),
        (("--node", "f" * 40), 1),
        ((), 2),
    ),
)
def test_wrong_usage_and_missing_files_have_codes_of_their_own(
    run: Run, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    path = tmp_path / "absent"
    if code != 1:
        path.write_bytes(GOOD["zip"])
    assert run("verify", str(path), *words).exit_code == code


REV_URL = "/archiver/git/team/proj/main"
OBJECT = "/bucket/proj.tar.gz"
GET = ("get", "git", "team/proj", "main", "-o", "here")
Offer = Callable[..., None]


@pytest.fixture
def offer(server: ScriptedServer) -> Offer:
    """Return a function that has the server offer an archive of a node."""

    def respond(data: bytes, node: str, proof: str = "") -> None:
        headers = {
            "Location": server.url + OBJECT,
            "Archiver-SHA256": hashlib.sha256(data).hexdigest(),
            "Archiver-Size": str(len(data)),
            "Archiver-Node": node,
            "Archiver-Region": "us-west-2",
            **({"Archiver-Proof": proof} if proof else {}),
        }
        server.respond(REV_URL, Response(status=302, headers=headers))
        server.respond(OBJECT, Response(body=data))

    return respond


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_get_proves_what_it_downloads(
    run: Run, server: ScriptedServer, offer: Offer, made: Made, suffix: str
) -> None:
    data = Path(made.write(made.tar(), suffix)).read_bytes()
    offer(data, made.node)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0, result.output
    assert f"proven: it has exactly the files of commit {made.node}" in result.stderr
    again = run(*GET, "--server", server.url, "--json")
    assert json.loads(again.stdout)["proof"] == "proven"


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_get_deletes_an_archive_whose_record_is_of_another_commit(
    run: Run, server: ScriptedServer, offer: Offer, made: Made, tmp_path: Path, suffix: str
) -> None:
    offer(Path(made.write(made.tar(), suffix)).read_bytes(), "f" * 40)
    before = set(tmp_path.iterdir())
    result = run(*GET, "--server", server.url)
    assert result.exit_code == WRONG
    assert f"the archive is not of {'f' * 40}" in result.stderr
    assert set(tmp_path.iterdir()) == before


def test_get_reports_and_keeps_an_archive_that_attributes_changed(
    run: Run, server: ScriptedServer, offer: Offer, tmp_path: Path
) -> None:
    files = {
        b".gitattributes": (0o100644, b"README export-subst\n"),
        b"README": (0o100644, b"$Format:%H$\n"),
    }
    made = Made(tmp_path, files)
    offer(Path(made.write(made.tar(), "tar.gz")).read_bytes(), made.node)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0
    assert f"not proven to be of commit {made.node}" in result.stderr
    assert (tmp_path / "here").exists()


ATTRIBUTES = (
    b"README export-subst\n",  # the archive shows that attributes may have changed it
    b"README export-subst\n.gitattributes export-ignore\n",  # the archive does not show it
)


def changed_by(attributes: bytes, folder: Path) -> Made:
    """Return archives of a commit that its own attributes change."""
    files = {
        b".gitattributes": (0o100644, attributes),
        b"README": (0o100644, b"$Format:%H$\n"),
    }
    return Made(folder, files)


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("proof", ("listed", *thorough("", "attributes", "of a later version")))
def test_get_keeps_other_files_unless_the_server_says_that_they_are_exact(
    run: Run,
    server: ScriptedServer,
    offer: Offer,
    tmp_path: Path,
    attributes: bytes,
    proof: str,
) -> None:
    made = changed_by(attributes, tmp_path)
    data = Path(made.write(made.tar(), "tar.gz")).read_bytes()
    offer(data, made.node, proof)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0
    assert f"not proven to be of commit {made.node}" in result.stderr
    assert (tmp_path / "here").read_bytes() == data


@pytest.mark.parametrize("attributes", ATTRIBUTES)
@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_get_deletes_other_files_that_the_server_says_are_exact(
    run: Run,
    server: ScriptedServer,
    offer: Offer,
    tmp_path: Path,
    attributes: bytes,
    suffix: str,
) -> None:
    made = changed_by(attributes, tmp_path)
    offer(Path(made.write(made.tar(), suffix)).read_bytes(), made.node, "exact")
    before = set(tmp_path.iterdir())
    result = run(*GET, "--server", server.url)
    assert result.exit_code == WRONG
    assert f"the archive is not of {made.node}, although the server says" in result.stderr
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_get_keeps_an_exact_archive_with_and_without_a_record(
    run: Run, server: ScriptedServer, offer: Offer, made: Made, suffix: str
) -> None:
    proven = Path(made.write(made.tar(), suffix)).read_bytes()
    for data, node in ((proven, made.node), (GOOD[suffix], samples.NODE)):
        offer(data, node, "exact")
        assert run(*GET, "--server", server.url).exit_code == 0
        assert Path("here").read_bytes() == data


@pytest.mark.parametrize("suffix", ("tar.gz", "zip"))
def test_get_says_nothing_about_an_archive_without_a_record(
    run: Run, server: ScriptedServer, offer: Offer, tmp_path: Path, suffix: str
) -> None:
    offer(GOOD[suffix], samples.NODE)
    result = run(*GET, "--server", server.url)
    assert result.exit_code == 0
    assert "prove" not in result.stderr
    assert (tmp_path / "here").read_bytes() == GOOD[suffix]


def test_get_proves_the_part_that_was_requested(
    run: Run, server: ScriptedServer, offer: Offer, made: Made
) -> None:
    data = Path(made.write(made.tar("a/deep"), "tar.gz", "a/deep")).read_bytes()
    offer(data, made.node)
    result = run(*GET, "--subdir", "a/deep/", "--server", server.url)
    assert result.exit_code == 0, result.output
    assert "proven: " in result.stderr


def test_get_proves_a_file_that_is_complete_already_and_never_deletes_it(
    run: Run, server: ScriptedServer, offer: Offer, made: Made, tmp_path: Path
) -> None:
    data = Path(made.write(made.tar(), "tar.gz")).read_bytes()
    own = tmp_path / "proj.tar.gz"
    own.write_bytes(data)
    offer(data, made.node)
    result = run(*GET[:-2], "--server", server.url)
    assert result.exit_code == 0, result.output
    assert "proven: " in result.stderr
    offer(data, "f" * 40)
    assert run(*GET[:-2], "--server", server.url).exit_code == WRONG
    assert own.read_bytes() == data


def test_the_commands_of_the_page_prove_an_archive_without_archiver(made: Made) -> None:
    plain = {path: file for path, file in FILES.items() if file[0] != 0o160000}
    made = Made(made.folder / "plain", plain)
    made.write(made.tar(), "tar.gz")
    (made.folder / "archive.tar.gz").rename(made.folder / "proj.tar.gz")
    page = PAGE.read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    *_, commands = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)

    def run_in_folder(*words: str) -> bytes:
        return subprocess.run(
            words, cwd=made.folder, env=ENVIRONMENT, capture_output=True, check=True
        ).stdout

    commit = run_in_folder(sys.executable, "-c", script, "proj.tar.gz")
    hashed = made.repository.run("hash-object", "-t", "commit", "--stdin", stdin=commit)
    assert hashed.decode().strip() == made.node
    tree = run_in_folder("/bin/sh", "-ec", commands)
    assert commit.startswith(b"tree " + tree)
