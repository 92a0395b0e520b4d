"""How a command finds the servers of a running `archiver serve`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from archiver.cli.command_settings import load_settings_or_embedded
from archiver.embedded.data_folder import open_data_folder
from archiver.settings import Settings, require_outside_world, require_regions

REGIONS = '{"us-east-1": {"bucket": "archives"}}'
ENGINE = "nats://127.0.0.1:1"


@pytest.mark.parametrize(
    ("requirement", "servers"),
    ((require_regions, []), (require_outside_world, [ENGINE])),
)
def test_embedded_servers_are_used_only_for_missing_settings(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requirement: Callable[[Settings], None],
    servers: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHIVER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ARCHIVER_REGIONS", REGIONS)
    monkeypatch.setenv("ARCHIVER_ENGINE__URL", "")  # so that its absence is restored in the end
    monkeypatch.delenv("ARCHIVER_ENGINE__URL")
    with open_data_folder(tmp_path / "data") as folder:
        folder.publish_running({"ARCHIVER_ENGINE__URL": ENGINE, "ARCHIVER_REGIONS": "{}"})
        settings = load_settings_or_embedded(None, require=(requirement,))
    assert list(settings.engine.servers) == servers
    assert list(settings.regions) == ["us-east-1"]
