"""The data folder: its lock, and what it keeps for the next run."""

import json
import socket
import stat
from pathlib import Path

import pytest

from archiver.embedded.data_folder import find_running, open_data_folder
from archiver.embedded.local_ports import LOOPBACK
from archiver.embedded.program import CannotServe


def test_a_folder_in_use_is_rejected(tmp_path: Path) -> None:
    with (
        open_data_folder(tmp_path),
        pytest.raises(CannotServe, match="in use by another"),
        open_data_folder(tmp_path, release_s=0.1),
    ):
        pass


def test_a_folder_is_unlocked_when_its_run_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with open_data_folder(tmp_path, release_s=0) as folder:
            assert folder.path == tmp_path


def test_the_next_run_has_the_same_secrets_and_ports(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        first = folder.secret("one"), folder.secret("two"), folder.port("one"), folder.port("two")
    with open_data_folder(tmp_path) as folder:
        again = folder.secret("one"), folder.secret("two"), folder.port("one"), folder.port("two")
    assert again == first
    assert len(set(first)) == 4


def test_only_the_owner_can_read_secrets(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        folder.secret("one")
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


def test_a_port_in_use_is_replaced_permanently(tmp_path: Path) -> None:
    with open_data_folder(tmp_path, release_s=0.1) as folder, socket.socket() as squatter:
        taken = folder.port("one")
        squatter.bind((LOOPBACK, taken))
        squatter.listen()
        replaced = folder.port("one")
        assert replaced != taken
        assert folder.port("one") == replaced


def test_other_commands_find_the_servers_of_a_run(tmp_path: Path) -> None:
    assert find_running(tmp_path / "nowhere") == {}
    with open_data_folder(tmp_path) as folder:
        folder.publish_running({"NAME": "value"})
        assert find_running(tmp_path) == {"NAME": "value"}
        assert stat.S_IMODE((tmp_path / "running.json").stat().st_mode) == 0o600
    assert find_running(tmp_path) == {}


def test_a_killed_run_does_not_count_as_running(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        folder.publish_running({"NAME": "value"})
        left = (tmp_path / "running.json").read_text()
    (tmp_path / "running.json").write_text(left)
    assert find_running(tmp_path) == {}
    with open_data_folder(tmp_path):
        assert find_running(tmp_path) == {}


@pytest.mark.parametrize("content", ("{", "[]", ""))
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with open_data_folder(tmp_path) as folder, pytest.raises(CannotServe, match=str(path)):
        folder.secret("one")
    assert path.read_text() == content


def test_a_file_is_rejected_as_data_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotServe, match="cannot be used"), open_data_folder(tmp_path / "file"):
        pass


def test_each_run_begins_with_empty_logs(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        folder.create_log("nats").write_text("of the last run")
        assert folder.create_log("nats").read_text() == ""


def test_a_file_is_replaced_atomically(tmp_path: Path) -> None:
    with open_data_folder(tmp_path) as folder:
        folder.secret("one")
        folder.secret("two")
    assert json.loads((tmp_path / "credentials.json").read_text()).keys() == {"one", "two"}
    assert not list(tmp_path.glob(".*"))
