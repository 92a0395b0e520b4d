"""Programs that read a token from netrc, against an Archiver that serves nobody without one."""

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.access.tokens import create_token, hash_token
from tests.parts.hgweb import Hgweb
from tests.programs.conftest import FILES
from tests.programs.project import Project, paste, sha256_of, shell
from tests.programs.test_bazel import ONE, bazel
from tests.programs.test_nix import NIX, nix
from tests.programs.test_python import PIP, UV
from tests.system.stack import Stack, servers

pytestmark = pytest.mark.programs

TOKEN = create_token()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, hgweb: Hgweb) -> Iterator[Stack]:
    """A fleet whose archives need the token. Its buckets have another name than its server.

    Otherwise the programs would send the token to the buckets too.
    """
    settings = {
        "ARCHIVER_SERVER__PROCESSES": "1",
        "ARCHIVER_ACCESS__ANONYMOUS": "none",
        "ARCHIVER_TOKENS": json.dumps({"ci": {"hash": hash_token(TOKEN)}}),
    }
    folder = tmp_path_factory.mktemp("locked")
    with servers(folder, template=hgweb.template_for(hgweb.port), settings=settings) as stack:
        regions = json.loads(stack.env["ARCHIVER_REGIONS"])
        for region in regions.values():
            region["public_endpoint"] = region["endpoint"].replace("127.0.0.1", "localhost")
        stack.env["ARCHIVER_REGIONS"] = json.dumps(regions)
        with stack.web(), stack.worker():
            yield stack


@pytest.fixture
def project(locked: Stack, hgweb: Hgweb, tmp_path: Path) -> Project:
    """A project without archives, and the token in the netrc of *tmp_path*."""
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1\nlogin token\npassword {TOKEN}\n")
    netrc.chmod(0o600)
    repository = hgweb.create(f"locked/{secrets.token_hex(4)}")
    return Project(
        server=locked.public, hgweb=hgweb, repo=repository.name, node=repository.commit(FILES)
    )


@pytest.mark.parametrize(("program", "options"), (("curl", " --netrc"), ("wget", "")))
def test_a_download_program_sends_the_token_in_netrc(
    program: str, options: str, project: Project, tmp_path: Path
) -> None:
    command = project.snippet(program)
    without = shell(command, folder=tmp_path, env={"HOME": "/nowhere"})
    assert without.returncode, without.stdout

    paste(command.replace(program, f"{program}{options}", 1), folder=tmp_path)

    assert sha256_of(tmp_path / project.file_name) == project.sha256()


def test_pip_sends_the_token_in_netrc(project: Project, tmp_path: Path) -> None:
    paste(project.snippet("pip"), folder=tmp_path, env=PIP)
    assert (tmp_path / "there" / "ash.py").read_bytes() == FILES["ash.py"]


def test_uv_sends_the_token_in_netrc(project: Project, tmp_path: Path) -> None:
    paste(f"uv venv --quiet --python {sys.executable} there", folder=tmp_path, env=UV)
    paste(project.snippet("uv"), folder=tmp_path, env=UV)
    (installed,) = (tmp_path / "there").rglob("ash.py")
    assert installed.read_bytes() == FILES["ash.py"]


def test_nix_sends_the_token_in_netrc(project: Project, tmp_path: Path) -> None:
    env = nix(tmp_path, f"netrc-file = {tmp_path}/.netrc\n")
    command = f"{project.snippet(NIX).strip()} --print-path"
    path = paste(command, folder=tmp_path, env=env).split()[-1]
    assert sha256_of(Path(path)) == project.sha256()


def test_bazel_sends_the_token_in_netrc(project: Project, tmp_path: Path) -> None:
    (tmp_path / "WORKSPACE").write_text(project.snippet(ONE, "starlark"))
    assert bazel(tmp_path) == FILES["ash.py"]
