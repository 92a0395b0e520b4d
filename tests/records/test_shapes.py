"""The shape of a record changes together with its version, or so that both releases can read it."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from archiver.client import lock_file
from archiver.record_versions import VERSIONS
from tests.records import shapes

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "records.md"
RELEASED = Path(__file__).with_name("released_shapes.json")

ACCEPTED = {
    "purge_mark.$defs.PurgeMark: additionalProperties is gone",
    "waiting.$defs: Priority is gone",
    "waiting.$defs.WaitingRecord.properties.priority: $ref is gone",
}
"""Readers accept more, and writers write the same. Empty this at each release."""


def test_the_shapes_on_file_are_those_of_the_code() -> None:
    """If not: read docs/reference/records.md, and then `python -m tests.records shapes`."""
    assert json.loads(shapes.SHAPES.read_text()) == shapes.current()


def test_a_record_of_the_same_version_can_be_read_by_the_previous_release() -> None:
    """``released_shapes.json`` is ``shapes.json`` of the previous release."""
    released, ours = json.loads(RELEASED.read_text()), shapes.current()
    found = {
        difference
        for record, old in released.items()
        if old["version"] == VERSIONS.get(record)
        for difference in shapes.differences(old["shape"], ours[record]["shape"], record)
    }

    assert found == ACCEPTED


def test_the_previous_release_wrote_the_same_version_or_the_one_before() -> None:
    released = json.loads(RELEASED.read_text())

    assert [r for r in released if VERSIONS[r] - released[r]["version"] not in {0, 1}] == []


def changed(**changes: Any) -> list[str]:  # noqa: ANN401
    old = shapes.shape_of("order")["shape"]
    new = copy.deepcopy(old)
    new["$defs"]["Order"].update(changes)
    return shapes.differences(old, new, "order")


@pytest.mark.parametrize("required", (["key"], ["key", "created_at", "client"]))
def test_another_set_of_required_members_is_a_difference(required: list[str]) -> None:
    assert changed(required=required)


def test_an_additional_member_is_none_but_a_removed_one_is() -> None:
    members = shapes.shape_of("order")["shape"]["$defs"]["Order"]["properties"]
    fewer = {name: each for name, each in members.items() if name != "client"}

    assert changed(properties={**members, "colour": {"type": "string"}}) == []
    assert changed(properties=fewer)


def test_every_record_is_described_with_its_version() -> None:
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\d+) \|", PAGE.read_text(), re.MULTILINE)

    assert {record: int(version) for record, version in rows} == VERSIONS


def test_the_version_in_lock_files_is_that_of_the_table() -> None:
    assert VERSIONS["lock_file"] == lock_file.VERSION
