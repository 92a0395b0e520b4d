"""Bazel as a client. The operating system provides it (`make clients`)."""

from pathlib import Path

import pytest

from tests.parts.process import free_port
from tests.programs.conftest import FILES, Projects
from tests.programs.project import BRIEF, LONG, Project, paste
from tests.system.client import fetch

pytestmark = pytest.mark.programs

ONE = "Pin one archive with Bazel"
ALL = "Redirect all archives of a host"


def bazel(folder: Path) -> bytes:
    """Fetch the pinned archive of *folder*'s WORKSPACE, and return its ``ash.py``."""
    root = folder / "root"
    paste(f"bazel --batch --output_user_root={root} fetch @ash//:ash.py", folder=folder)
    (fetched,) = root.glob("*/external/ash/ash.py")
    return fetched.read_bytes()


def write_rules(project: Project, folder: Path) -> None:
    """Write a rule with the host's URL, and a configuration that redirects it to Archiver."""
    rule = project.snippet(ONE, "starlark", suffix="zip")
    ours = f"{project.server}/get/hgmo/{project.repo}/{project.node}.tar.gz"
    theirs = f"{project.hgweb.url}/{project.repo}/archive/{project.node[:12]}.zip"
    assert ours in rule
    (folder / "WORKSPACE").write_text(rule.replace(ours, theirs))
    (folder / "archiver.cfg").write_text(project.snippet(ALL, "text"))
    (folder / ".bazelrc").write_text(project.snippet(ALL, "ini"))


def exists(project: Project) -> bool:
    url = f"{project.server}/get/hgmo/{project.repo}/{project.node}.zip"
    return fetch(url, method="HEAD").status == 302


@pytest.mark.parametrize("seconds", (BRIEF, LONG))
def test_bazel_fetches_a_missing_archive(
    seconds: float, projects: Projects, tmp_path: Path
) -> None:
    (tmp_path / "WORKSPACE").write_text(projects(seconds).snippet(ONE, "starlark"))

    assert bazel(tmp_path) == FILES["ash.py"]


def test_a_rule_about_the_host_is_redirected_to_archiver(
    projects: Projects, tmp_path: Path
) -> None:
    project = projects(BRIEF)
    write_rules(project, tmp_path)

    assert bazel(tmp_path) == FILES["ash.py"]
    assert exists(project)


def test_bazel_falls_back_to_the_same_bytes_of_the_host(projects: Projects, tmp_path: Path) -> None:
    project = projects(0)
    write_rules(project, tmp_path)
    rules = tmp_path / "archiver.cfg"
    server = project.server.removeprefix("http://")
    rules.write_text(rules.read_text().replace(server, f"127.0.0.1:{free_port()}"))

    assert bazel(tmp_path) == FILES["ash.py"]
    assert not exists(project)
