"""The settings files in ``deploy/`` are valid, and agree with the files beside them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.settings import Settings, load
from tests.deploy.files import manifest, read, read_yaml, unit
from tests.deploy.settings_files import IMAGE, WRITERS
from tests.parts.commands import Run, restored, run

__all__ = ["restored", "run"]

Load = Callable[[str], Settings]


@pytest.fixture
def load_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: None) -> Load:  # noqa: ARG001
    """Return the settings of one of the ways to deploy."""

    def load_of(name: str) -> Settings:
        monkeypatch.chdir(tmp_path)
        for variable, value in IMAGE.items():
            monkeypatch.setenv(variable, value)
        path = tmp_path / "archiver.toml"
        path.write_text(WRITERS[name](tmp_path))
        return load(path)

    return load_of


@pytest.mark.parametrize("name", WRITERS)
def test_the_program_accepts_the_file_without_a_warning(
    run: Run, tmp_path: Path, name: str
) -> None:
    (tmp_path / "archiver.toml").write_text(WRITERS[name](tmp_path))
    result = run("config", "check", **IMAGE)
    assert result.exit_code == 0, result.output
    assert "swordfish" not in result.output
    assert result.stderr == ""


@pytest.mark.parametrize("name", WRITERS)
def test_secrets_come_from_files(load_file: Load, name: str) -> None:
    settings = load_file(name)
    assert settings.engine.password is None
    assert settings.engine.login.password
    for region in settings.regions.values():
        assert region.secret_access_key is None
        assert region.read_secret_access_key()


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text[:-1])


def patience_s(name: str) -> int:
    """Return how long a worker has between SIGTERM and SIGKILL."""
    if name == "compose":
        return seconds(
            read_yaml("compose/compose.yaml")["services"]["worker-1"]["stop_grace_period"]
        )
    if name == "systemd":
        return int(unit("archiver-worker@.service")["TimeoutStopSec"][0])
    pod = manifest("StatefulSet", "archiver-worker")["spec"]["template"]["spec"]
    return int(pod["terminationGracePeriodSeconds"])


@pytest.mark.parametrize("name", WRITERS)
def test_a_worker_has_its_grace_and_30_s_before_it_is_killed(load_file: Load, name: str) -> None:
    assert patience_s(name) == load_file(name).worker.grace_s + 30


def test_what_a_worker_stores_fits_into_its_volume(load_file: Load) -> None:
    worker = load_file("kubernetes").worker
    claim = manifest("StatefulSet", "archiver-worker")["spec"]["volumeClaimTemplates"][0]
    size = claim["spec"]["resources"]["requests"]["storage"]
    stored = worker.work_max_bytes + worker.mirror_max_bytes + worker.lfs_max_bytes
    assert stored < int(size.removesuffix("Gi")) << 30


def test_nats_has_room_for_what_the_streams_reserve(load_file: Load) -> None:
    archives = load_file("compose").engine.archives
    assert "max_file_store: 4GB" in read("compose/nats.conf")
    assert archives * 4600 < 2e9  # with the queues of all sources
