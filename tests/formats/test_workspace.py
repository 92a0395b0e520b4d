"""Room on the disk is bounded, asked for beforehand, and given back."""

import shutil
from pathlib import Path

import pytest

from archiver.errors import NoRoom
from archiver.formats.workspace import SPARE_BYTES, STEP_BYTES, Spool, Workspace


def workspace(folder: Path, max_bytes: int = 4 * STEP_BYTES) -> Workspace:
    return Workspace(folder=folder, max_bytes=max_bytes)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    with workspace(tmp_path).spool() as spool:
        spool.write(b"one")
        spool.write(b"two")

        assert list(spool.read(4)) == [b"onet", b"wo"]
        assert spool.size_bytes == 6


def test_the_file_has_no_name_and_is_gone_with_the_process(tmp_path: Path) -> None:
    with workspace(tmp_path).spool() as spool:
        spool.write(b"data")

        assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made_if_it_is_not_there(tmp_path: Path) -> None:
    with workspace(tmp_path / "a" / "b").spool() as spool:
        spool.write(b"data")


def test_a_folder_that_cannot_be_made_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NoRoom), workspace(tmp_path / "file").spool():
        pass


def test_a_disk_that_is_full_is_no_room(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - has to be unbuffered
        spool = Spool(workspace=workspace(tmp_path), file=full)

        with pytest.raises(NoRoom):
            spool.write(b"data")


def test_what_fails_while_a_file_is_there_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    """A TimeoutError is an OSError as well, and so is whatever breaks a connection."""
    with pytest.raises(TimeoutError), workspace(tmp_path).spool():
        raise TimeoutError


def test_what_is_expected_has_to_fit_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NoRoom), workspace(tmp_path).spool(expected_bytes=4 * STEP_BYTES + 1):
        pass


def test_what_lies_there_at_a_time_is_bounded_and_given_back(tmp_path: Path) -> None:
    shared = workspace(tmp_path, 2 * STEP_BYTES)
    with shared.spool() as first, shared.spool() as second:
        first.write(b"x")
        second.write(b"x")
        with pytest.raises(NoRoom):
            first.write(bytes(STEP_BYTES))
    with shared.spool(expected_bytes=2 * STEP_BYTES):
        pass


def test_room_for_a_small_archive_can_be_asked_for_and_is_given_back(tmp_path: Path) -> None:
    shared = workspace(tmp_path, 2 * STEP_BYTES)
    with (
        shared.spool(expected_bytes=2 * STEP_BYTES),
        pytest.raises(NoRoom, match=r"work_max_bytes"),
    ):
        shared.require_room()
    shared.require_room(expected_bytes=2 * STEP_BYTES)
    shared.require_room()
    with pytest.raises(NoRoom):
        shared.require_room(expected_bytes=2 * STEP_BYTES + 1)


def test_the_disk_keeps_some_room_for_others(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    with (
        pytest.raises(NoRoom),
        workspace(tmp_path, 1 << 60).spool(expected_bytes=free - SPARE_BYTES // 2),
    ):
        pass
