"""The findings about a machine."""

from pathlib import Path

import pytest

from archiver.diagnosis.finding import Level
from archiver.diagnosis.machine_check import DEFAULT, FolderNeeds, examine_files, examine_folder
from tests.diagnosis.diagnosing import diagnose, of


def needs(folder: Path, *, max_bytes: int = 0) -> FolderNeeds:
    return FolderNeeds(
        check="disk.work_dir",
        setting="worker.work_dir",
        folder=folder,
        spare_bytes=1,
        max_setting="worker.work_max_bytes",
        max_bytes=max_bytes,
    )


def test_a_folder_with_room_is_well_and_left_as_it_was(tmp_path: Path) -> None:
    assert examine_folder(needs(tmp_path)).level is Level.OK
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_does_not_exist_yet_is_not_created(tmp_path: Path) -> None:
    assert examine_folder(needs(tmp_path / "a" / "b")).level is Level.OK
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    finding = examine_folder(needs(file))
    assert finding.level is Level.FAILED
    assert finding.found == f"{file} cannot be written: not a directory"
    assert finding.action == "let this user write there, or change worker.work_dir"


def test_a_folder_that_cannot_be_created_has_the_reason_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    finding = examine_folder(needs(file / "work"))
    assert finding.level is Level.FAILED
    assert finding.found == f"{file / 'work'} cannot be written: not a directory"


def test_what_a_folder_holds_already_counts_as_room(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 43)
    assert examine_folder(needs(tmp_path, max_bytes=1 << 43)).level is Level.OK


def test_the_default_folder_may_not_be_that_of_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    default = of(diagnose({}, only="disk"), "disk.work_dir").found
    assert f"{tmp_path}/archiver/work" in default
    assert default.endswith(DEFAULT)
    for chosen in ({"data_dir": tmp_path}, {"worker": {"work_dir": tmp_path}}):
        assert DEFAULT not in of(diagnose(chosen, only="disk"), "disk.work_dir").found


def test_a_low_limit_of_open_files_is_a_warning() -> None:
    assert examine_files(1 << 20).level is Level.OK
    finding = examine_files(1024)
    assert finding.level is Level.WARNING
    assert "LimitNOFILE" in finding.action
