"""pip and uv as clients. The test dependencies include both."""

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiver.cli import main
from tests.programs.conftest import FILES, Projects, got_503
from tests.programs.project import BRIEF, LONG, paste
from tests.system.stack import Stack

PIP = {
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_NO_INDEX": "1",
    "PIP_TARGET": "there",
}
UV = {
    "UV_NO_CACHE": "1",
    "UV_NO_CONFIG": "1",
    "UV_NO_INDEX": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "VIRTUAL_ENV": "there",
}


@pytest.mark.thorough
@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_pip_installs_a_missing_archive(
    seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    project = projects(seconds)

    paste(project.snippet("pip"), folder=tmp_path, env=PIP)

    assert (tmp_path / "there" / "ash.py").read_bytes() == FILES["ash.py"]
    assert got_503(stack, project) or seconds == BRIEF


@pytest.mark.thorough
@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_uv_installs_a_missing_archive(
    seconds: float, projects: Projects, stack: Stack, tmp_path: Path
) -> None:
    project = projects(seconds)
    paste(f"uv venv --quiet --python {sys.executable} there", folder=tmp_path, env=UV)

    paste(project.snippet("uv"), folder=tmp_path, env=UV)

    (installed,) = (tmp_path / "there").rglob("ash.py")
    assert installed.read_bytes() == FILES["ash.py"]
    assert got_503(stack, project) or seconds == BRIEF


@pytest.mark.parametrize(
    ("command", "env"),
    (pytest.param("pip install", PIP, marks=pytest.mark.thorough), ("uv pip install", UV)),
    ids=("pip", "uv"),
)
def test_a_part_of_a_repository_is_installed(
    command: str, env: dict[str, str], projects: Projects, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text(projects(0).snippet("pip", "text"))
    paste(f"uv venv --quiet --python {sys.executable} there", folder=tmp_path, env=UV)

    paste(f"{command} -r requirements.txt", folder=tmp_path, env=env)

    (installed,) = (tmp_path / "there").rglob("ash.py")
    assert installed.read_bytes() == FILES["python/ash/ash.py"]


@pytest.mark.parametrize(
    ("command", "env"),
    (pytest.param("pip install", PIP, marks=pytest.mark.thorough), ("uv pip install", UV)),
    ids=("pip", "uv"),
)
def test_a_locked_part_of_a_repository_is_installed(
    command: str, env: dict[str, str], projects: Projects, tmp_path: Path
) -> None:
    project = projects(0)
    words = ("lock", str(tmp_path / "deps.json"), f"ash=hgmo/{project.repo}@{project.node}")
    options = ("--subdir", "python/ash", "--server", project.server, "--format", "pip")
    locked = CliRunner().invoke(main, (*words, *options))
    assert locked.exit_code == 0, locked.output
    (tmp_path / "requirements.txt").write_text(locked.stdout)
    paste(f"uv venv --quiet --python {sys.executable} there", folder=tmp_path, env=UV)

    paste(f"{command} --require-hashes -r requirements.txt", folder=tmp_path, env=env)

    (installed,) = (tmp_path / "there").rglob("ash.py")
    assert installed.read_bytes() == FILES["python/ash/ash.py"]
