"""``archiver audit``: its arguments and its reports."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from archiver.cli.audit_report import (
    DIFFERENCES_MAX,
    format_summary,
    print_finding,
    raise_alarms,
    to_json_line,
)
from archiver.client.failures import CommandFailed
from archiver.drift import Content, Difference, Drift
from archiver.model import Archive, Conversion, Manifest, Node, Region
from archiver.tasks import Failure
from archiver.upkeep.finding import Fetched, Finding, Outcome
from tests.parts.commands import Run

ARCHIVE = Archive(
    source="hgmo", repo="projects/ash", node=Node("0123456789" * 4), subdir="", suffix="tar.zst"
)
CONVERSION = Conversion(key="v1/k", sha256="c" * 64, size_bytes=3, converter="archiver 1, zstd 1")
MANIFEST = Manifest(
    key=ARCHIVE.key,
    node=ARCHIVE.node,
    sha256="a" * 64,
    size_bytes=1000,
    object_key="archives/k",
    root="ash",
    source_url="https://hg.example/ash",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    conversion=CONVERSION,
)
FETCHED = Fetched(
    sha256="b" * 64,
    size_bytes=1001,
    source_url="https://hg.example/ash",
    conversion=replace(CONVERSION, converter="archiver 2, zstd 1"),
)
NOTE = Content(
    name=b"ash/.hg_archival.txt", kind="file", mode=0o644, mtime=0, size_bytes=120, sha256="d" * 64
)
CHANGED = replace(NOTE, size_bytes=140, sha256="e" * 64, mode=0o755, mtime=1)
DIFFERENCES = (
    Difference(name=NOTE.name, stored=NOTE, fetched=CHANGED),
    Difference(name=b"ash/\x1b[31m\xff", stored=NOTE, fetched=None),
    Difference(name=b"ash/new", stored=None, fetched=NOTE),
)
DIFFERS = Finding(
    archive=ARCHIVE,
    outcome=Outcome.DIFFERS,
    manifest=MANIFEST,
    fetched=FETCHED,
    drift=Drift(members=3, differences=DIFFERENCES, reordered=True),
)
SAME = Finding(archive=ARCHIVE, outcome=Outcome.SAME, manifest=MANIFEST, fetched=FETCHED)
CORRUPT = Finding(
    archive=ARCHIVE,
    outcome=Outcome.CORRUPT,
    manifest=MANIFEST,
    fetched=FETCHED,
    region=Region("us-east-1"),
    failure=Failure(code="corrupt_archive", message="the copy in us-east-1 is damaged"),
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    (
        ((), 0),
        (("same", "repacked"), 0),
        (("same", "unchecked"), 75),
        (("unchecked", "differs"), 1),
        (("corrupt",), 1),
        (("incomplete", "same"), 1),
        (("gone", "same"), 1),
        (("lost", "same"), 1),
    ),
)
def test_the_exit_code_is_that_of_the_worst_outcome(outcomes: tuple[str, ...], code: int) -> None:
    counted = Counter(map(Outcome, outcomes))

    if not code:
        raise_alarms(counted)
        return
    with pytest.raises(CommandFailed) as failed:
        raise_alarms(counted)
    assert failed.value.exit_code == code


def test_the_summary_counts_outcomes() -> None:
    assert format_summary(Counter()) == "0 archives"
    assert format_summary(Counter([Outcome.SAME])) == "1 archive: 1 same"
    counted = Counter([Outcome.GONE, Outcome.SAME, Outcome.SAME])
    assert format_summary(counted) == "3 archives: 2 same, 1 gone"


def test_the_text_has_both_sha256_and_each_member(capsys: pytest.CaptureFixture[str]) -> None:
    print_finding(DIFFERS)

    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        f"differs     {ARCHIVE.task_id}",
        f"stored   sha256 {'a' * 64} (1,000 bytes), made by archiver 1, zstd 1",
        f"fetched  sha256 {'b' * 64} (1,001 bytes), made by archiver 2, zstd 1",
        "the order of the members differs",
        "ash/.hg_archival.txt: mode, time, content",
        "stored   mode 0644",
        "fetched  mode 0755",
        "stored   time 1970-01-01T00:00:00+00:00",
        "fetched  time 1970-01-01T00:00:01+00:00",
        f"stored   sha256 {'d' * 64} (120 bytes)",
        f"fetched  sha256 {'e' * 64} (140 bytes)",
        r"ash/\x1b[31m\xff: only stored",
        "ash/new: only fetched",
    ]


def test_the_text_lists_a_limited_number_of_members(capsys: pytest.CaptureFixture[str]) -> None:
    drift = Drift(members=5000, differences=DIFFERENCES[2:] * 1000, reordered=False)

    print_finding(replace(DIFFERS, drift=drift))

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + DIFFERENCES_MAX + 1
    assert lines[-1].strip() == "and 4,980 more"


def test_an_unchanged_archive_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_finding(SAME)

    assert capsys.readouterr().out == f"same        {ARCHIVE.task_id}\n"


def test_a_failure_is_printed_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    print_finding(CORRUPT)

    assert "corrupt_archive: the copy in us-east-1 is damaged" in capsys.readouterr().out


def test_the_json_is_one_line_with_every_detail() -> None:
    line = to_json_line(DIFFERS)

    assert "\n" not in line
    document = json.loads(line)
    assert (document["task"], document["outcome"]) == (ARCHIVE.task_id, "differs")
    assert (document["stored"]["sha256"], document["fetched"]["sha256"]) == ("a" * 64, "b" * 64)
    assert document["stored"]["conversion"]["converter"] == "archiver 1, zstd 1"
    assert document["drift"]["members"] == 3
    assert document["drift"]["reordered"] is True
    note, lacking, more = document["drift"]["differences"]
    assert (note["name"], note["aspects"]) == ("ash/.hg_archival.txt", ["mode", "time", "content"])
    assert (note["stored"]["mode"], note["fetched"]["mode"]) == ("0644", "0755")
    assert (lacking["fetched"], more["stored"]) == (None, None)


def test_the_json_has_null_for_unknown_values() -> None:
    document = json.loads(to_json_line(CORRUPT))
    assert (document["region"], document["error"]["code"]) == ("us-east-1", "corrupt_archive")

    bare = json.loads(to_json_line(Finding(archive=ARCHIVE)))
    assert {name: bare[name] for name in ("stored", "fetched", "drift", "region", "error")} == (
        dict.fromkeys(("stored", "fetched", "drift", "region", "error"))
    )


@pytest.mark.parametrize(
    "words",
    (
        (ARCHIVE.task_id, "--all"),
        (ARCHIVE.task_id, "--source", "hgmo"),
        ("--all", "--sample", "3"),
        ("--sample", "0"),
        ("no-task",),
        ("--source", "nowhere"),
        (),
    ),
)
def test_contradictory_or_unknown_arguments_are_rejected(run: Run, words: tuple[str, ...]) -> None:
    regions = {"ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "b"}}'} if words else {}

    result = run("audit", *words, **regions)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "regions" in result.stderr or words


@pytest.mark.parametrize("url", ("https://archiver.example/archiver/status/", ""))
def test_a_task_may_be_given_as_its_status_url(run: Run, url: str) -> None:
    result = run("audit", f"{url}{ARCHIVE.task_id}")

    assert result.exit_code == 2
    assert "regions" in result.stderr  # so the task was understood
