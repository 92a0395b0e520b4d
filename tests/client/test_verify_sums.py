"""``archiver verify`` compares a file with its SHA-256, from wherever that is known."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, SHA256
from tests.parts.commands import Run
from tests.parts.json_output import documents

OTHER = "0" * 64
LOCK = {
    "version": 1,
    "archives": {"here": {"source": "a", "repo": "b", "rev": "c", "file": "here"}},
}


@pytest.fixture(autouse=True)
def file(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.write_bytes(CONTENT)
    return path


def write_known(folder: Path, sha256: str) -> None:
    """Write the sum in each form in which it may be known."""
    (folder / "here.sha256").write_text(f"{sha256.upper()}  here\n")
    (folder / "sums").write_text(f"{OTHER}  other\n{sha256} *some/where/here\n")
    locked = {**LOCK["archives"]["here"], "node": "1" * 40, "sha256": sha256, "size": 1}  # type: ignore[index]
    (folder / "deps.json").write_text(json.dumps({**LOCK, "archives": {"here": locked}}))


@pytest.mark.parametrize(
    "words",
    ((), ("--sums", "sums"), ("--lock", "deps.json"), ("--sha256", SHA256.upper())),
)
def test_the_bytes_are_right_or_not(
    run: Run, tmp_path: Path, file: Path, words: tuple[str, ...]
) -> None:
    write_known(tmp_path, SHA256)
    right = run("verify", "here", *words)
    assert (right.exit_code, right.stdout) == (0, f"here has the SHA-256 {SHA256}\n")
    file.write_bytes(b"damaged")
    wrong = run("verify", "here", *words, "--json")
    assert wrong.exit_code == 5
    assert f"not {SHA256}" in wrong.stderr
    (document,) = documents(wrong.stdout)
    assert (document["expected_sha256"], document["sha256"] == SHA256) == (SHA256, False)


@pytest.mark.parametrize(
    "words",
    (
        (),
        ("--sums", "nowhere"),
        ("--sums", "here"),
        ("--lock", "deps.json"),
        ("--sha256", "abc"),
        ("--sha256", SHA256, "--sums", "here"),
    ),
)
def test_without_a_sum_nothing_is_verified(
    run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "deps.json").write_text(json.dumps(LOCK))
    result = run("verify", "here", *words)
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.parametrize("first", (OTHER, SHA256))
def test_the_path_counts_more_than_the_name(run: Run, tmp_path: Path, first: str) -> None:
    """The sum of another file of the same name comes first."""
    below = tmp_path / "below"
    below.mkdir()
    (below / "here").write_bytes(CONTENT)
    (tmp_path / "sums").write_text(f"{OTHER}  other/here\n{first}  here\n{SHA256}  ./below/here\n")
    locked = {"source": "a", "repo": "b", "rev": "c", "node": "1" * 40}
    archives = {
        "a": {**locked, "file": "other/here", "sha256": OTHER},
        "b": {**locked, "file": "below/here", "sha256": SHA256},
    }
    (tmp_path / "deps.json").write_text(json.dumps({"version": 1, "archives": archives}))
    for known in (("--sums", "sums"), ("--lock", "deps.json")):
        assert run("verify", "below/here", *known).exit_code == 0
    assert run("verify", "here", "--sums", "sums").exit_code == (0 if first == SHA256 else 5)


def test_several_sums_for_a_name_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{SHA256}  a/here\n{OTHER}  b/here\n")
    result = run("verify", "here", "--sums", "sums")
    assert result.exit_code == 2
    assert "several SHA-256s for here" in result.stderr


def test_the_lock_of_a_complete_archive_has_the_sum(run: Run, tmp_path: Path) -> None:
    write_known(tmp_path, SHA256)
    lock = json.loads((tmp_path / "deps.json").read_text())
    lock["archives"]["here"] |= {"submodules": True, "lfs": True}
    (tmp_path / "deps.json").write_text(json.dumps(lock))
    assert run("verify", "here", "--lock", "deps.json").exit_code == 0


@pytest.mark.parametrize("name", ("a\\b", "a\nb", "a\rb", "a\\nb", "a\x0bb", "a\u2028b", "\udcff"))
def test_the_lines_of_sha256sum_are_read(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    sums = tmp_path / "sums"
    with sums.open("wb") as file:
        subprocess.run(["sha256sum", name], cwd=tmp_path, stdout=file, check=True)  # noqa: S607
    result = run("verify", name, "--sums", "sums")
    assert result.exit_code == 0, result.output


def test_sums_of_any_length_are_not_cut(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text("#\n" * 2**19 + f"{SHA256}  here.gz\n")
    result = run("verify", "here", "--sums", "sums")
    assert result.exit_code == 2
    assert "more than 1,048,576 bytes" in result.stderr


@pytest.mark.parametrize(
    "words", ((), ("--sha256", SHA256), ("--lock", "deps.json"), ("--sums", "sums"))
)
def test_a_missing_file_is_named(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    write_known(tmp_path, SHA256)
    result = run("verify", "nowhere", *words)
    assert result.exit_code == 1
    assert result.stderr == "Error: nowhere: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ((), "here.sha256: No such file or directory\nHint: --sha256, "),
        (("--sums", "sums"), "sums: No such file or directory\nHint: --sha256, "),
        (("--lock", "deps.json"), "deps.json does not exist\nHint: Check its name."),
    ),
)
def test_a_missing_sum_is_named(run: Run, words: tuple[str, ...], expected: str) -> None:
    result = run("verify", "here", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {expected}")
