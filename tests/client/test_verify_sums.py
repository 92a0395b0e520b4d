"""``archiver verify`` compares a file with its SHA-256, from wherever that is known."""

import json
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


def test_a_missing_file_is_named(run: Run) -> None:
    result = run("verify", "nowhere", "--sha256", SHA256)
    assert result.exit_code == 1
    assert "nowhere: No such file" in result.stderr
