"""Runs commands of ``archiver``, in the process of the tests or in one of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from archiver.cli import main
from tests.parts.json_output import check_json

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Restore what a command that runs in this process changes: the environment.

    Let SIGINT have its usual effect here and in children. A shell that runs the tests in its
    background has it ignored.
    """
    environment = dict(os.environ)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command in an empty folder, without any settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHIVER_CONFIG", "")  # restored, because --config sets it
    monkeypatch.delenv("ARCHIVER_CONFIG")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "nowhere"))

    def run_command(*words: str, stdin: str | None = None, **env: str) -> Result:
        result = CliRunner().invoke(main, words, input=stdin, env=env)
        if "--json" in words:
            check_json(words, result.stdout, result.exit_code)
        return result

    return run_command


def run_alone(
    folder: Path, *words: str, engine: str = "", regions: Mapping[str, Mapping[str, str]]
) -> subprocess.CompletedProcess[str]:
    """Run a command with these parts in its own process, because it sets up the log."""
    settings = {"ARCHIVER_REGIONS": json.dumps(regions)}
    if engine:
        settings["ARCHIVER_ENGINE__URL"] = engine
    result = subprocess.run(
        [sys.executable, "-m", "archiver", *words],
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "--json" in words:
        check_json(words, result.stdout, result.returncode)
    return result
