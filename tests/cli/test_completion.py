"""``archiver completion`` in a real bash, and its script for the other shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.commands import Run

PROMPT = """
source script
COMP_WORDS=({words}) COMP_CWORD={last} COMP_LINE='{words}' COMPREPLY=()
_archiver_completion archiver
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    (
        ("archiver fe", {"fetch"}),
        ("archiver get --ext", {"--extract"}),
        ("archiver lock --format s", {"sha256sums"}),
    ),
)
def test_bash_completes_commands_options_and_values(
    run: Run, tmp_path: Path, words: str, expected: set[str]
) -> None:
    (tmp_path / "script").write_text(run("completion", "bash").stdout)
    program = tmp_path / "archiver"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{MAIN}" "$@"\n')
    program.chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    prompt = PROMPT.format(words=words, last=len(words.split()) - 1)
    completed = subprocess.run(
        [bash, "--norc", "-c", prompt],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert {*completed.stdout.split()} == expected, completed.stderr


MAIN = "from archiver.cli import main; main(prog_name='archiver')"


@pytest.mark.parametrize(("shell", "sign"), (("zsh", "#compdef archiver"), ("fish", "complete ")))
def test_other_shells_have_a_script(run: Run, shell: str, sign: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert sign in result.stdout
