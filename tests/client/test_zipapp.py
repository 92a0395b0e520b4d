"""The client as one file, which `make client` builds."""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.client.responses import CONTENT, GET, OBJECT, REV_URL
from tests.parts.scripted_server import Response, ScriptedServer, ranged

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "zipapp_client.py"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the libraries of the client. `make client` takes older versions."""
    folder = tmp_path_factory.mktemp("libraries")
    for name in ("click", "urllib3"):
        spec = find_spec(name)
        assert spec
        assert spec.origin
        shutil.copytree(Path(spec.origin).parent, folder / name)
    return folder


def build(folder: Path, libraries: Path) -> Path:
    target = folder / "archiver.pyz"
    subprocess.run([sys.executable, SCRIPT, target, libraries], check=True)
    return target


def test_it_downloads_with_the_standard_library_alone(
    tmp_path: Path, libraries: Path, server: ScriptedServer, hit: Response
) -> None:
    server.respond(REV_URL, hit)
    server.respond(OBJECT, ranged(CONTENT))
    words = (*GET, "--server", server.url, "-o", "here")
    result = subprocess.run(
        [sys.executable, "-I", "-S", build(tmp_path, libraries), *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "here").read_bytes() == CONTENT


def test_the_same_content_has_the_same_bytes(tmp_path: Path, libraries: Path) -> None:
    built = {build(tmp_path, libraries).read_bytes() for _ in range(2)}
    assert len(built) == 1


def test_its_modules_need_no_newer_python_than_3_9(tmp_path: Path, libraries: Path) -> None:
    with zipfile.ZipFile(build(tmp_path, libraries)) as archive:
        archive.extractall(tmp_path / "modules")
    vermin = Path(sys.executable).with_name("vermin")
    result = subprocess.run(
        [vermin, "-t=3.9-", "--no-tips", "--violations", tmp_path / "modules" / "archiver"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
