"""Nix as a client. The operating system provides it (`make clients`)."""

from pathlib import Path

import pytest

from tests.programs.conftest import Projects
from tests.programs.project import BRIEF, LONG, paste, sha256_of

pytestmark = pytest.mark.programs

NIX = "Pin one archive with Nix"


def nix(folder: Path, settings: str = "") -> dict[str, str]:
    """Return environment variables for Nix: its store is in *folder*, it has no substituters."""
    (folder / "nix.conf").write_text(
        f"sandbox = false\nbuild-users-group =\nsubstituters =\n{settings}"
    )
    places = {
        "NIX_STORE_DIR": "store",
        "NIX_STATE_DIR": "state",
        "NIX_LOG_DIR": "log",
        "NIX_CONF_DIR": ".",
    }
    return {name: str(folder / place) for name, place in places.items()}


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_nix_prefetches_a_missing_archive(
    seconds: float, projects: Projects, tmp_path: Path
) -> None:
    project = projects(seconds)

    path = paste(
        f"{project.snippet(NIX).strip()} --print-path", folder=tmp_path, env=nix(tmp_path)
    ).split()[-1]

    assert sha256_of(Path(path)) == project.sha256()


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_nix_builds_from_a_missing_archive(
    seconds: float, projects: Projects, tmp_path: Path
) -> None:
    project = projects(seconds)
    (tmp_path / "ash.nix").write_text(project.snippet(NIX, "nix"))

    path = paste("nix-build --no-out-link ash.nix", folder=tmp_path, env=nix(tmp_path))

    assert sha256_of(Path(path.strip())) == project.sha256()


def test_a_hashed_mirror_serves_an_archive_whose_url_fails(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(0)
    paste(project.snippet("curl"), folder=tmp_path)
    env = nix(tmp_path, project.snippet("Use as a hashed mirror", "ini"))
    expression = project.snippet(NIX, "nix").replace(project.server, "http://127.0.0.1:1")
    (tmp_path / "ash.nix").write_text(expression)

    path = paste("nix-build --no-out-link ash.nix", folder=tmp_path, env=env)

    assert sha256_of(Path(path.strip())) == project.sha256()
