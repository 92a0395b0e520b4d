"""Disk space is limited, reserved in advance and released."""

import shutil
from pathlib import Path

import pytest

from archiver.errors import NoRoom
from archiver.formats.workspace import SPARE_BYTES, STEP_BYTES, Spool, Workspace


def workspace(folder: Path, max_bytes: int = 4 * STEP_BYTES) -> Workspace:
    return Workspace(folder=folder, max_bytes=max_bytes)


def test_a_spool_returns_the_written_bytes(tmp_path: Path) -> None:
    with workspace(tmp_path).spool() as spool:
        spool.write(b"one")
        spool.write(b"two")

        assert list(spool.iter_pieces(4)) == [b"onet", b"wo"]
        assert spool.size_bytes == 6


def test_the_file_has_no_name(tmp_path: Path) -> None:
    with workspace(tmp_path).spool() as spool:
        spool.write(b"data")

        assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    with workspace(tmp_path / "a" / "b").spool() as spool:
        spool.write(b"data")


def test_a_folder_that_cannot_be_created_raises_no_room(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NoRoom), workspace(tmp_path / "file").spool():
        pass


def test_a_full_disk_raises_no_room(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 - must be unbuffered
        spool = Spool(workspace=workspace(tmp_path), file=full)

        with pytest.raises(NoRoom):
            spool.write(b"data")


def test_other_failures_within_the_block_are_not_translated(tmp_path: Path) -> None:
    """TimeoutError and errors of connections are OSErrors as well."""
    with pytest.raises(TimeoutError), workspace(tmp_path).spool():
        raise TimeoutError


def test_the_expected_size_must_fit_before_the_first_write(tmp_path: Path) -> None:
    with pytest.raises(NoRoom), workspace(tmp_path).spool(expected_bytes=4 * STEP_BYTES + 1):
        pass


def test_the_total_size_is_limited_and_released(tmp_path: Path) -> None:
    shared = workspace(tmp_path, 2 * STEP_BYTES)
    with shared.spool() as first, shared.spool() as second:
        first.write(b"x")
        second.write(b"x")
        with pytest.raises(NoRoom):
            first.write(bytes(STEP_BYTES))
    with shared.spool(expected_bytes=2 * STEP_BYTES):
        pass


def test_required_room_is_released_at_once(tmp_path: Path) -> None:
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


def test_some_room_on_the_disk_stays_free(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free

    with (
        pytest.raises(NoRoom),
        workspace(tmp_path, 1 << 60).spool(expected_bytes=free - SPARE_BYTES // 2),
    ):
        pass
