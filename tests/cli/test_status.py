"""``archiver status``."""

import json

import pytest

from tests.cli.conftest import Run, Said, Script
from tests.cli.test_get import STATUS, problem, progress

TASK = "hgmo:projects:ash"
LINKS = {"us-west-2": "http://s3/two?X-Amz-Signature=1", "us-east-1": "http://s3/one?X-Amz-a=2"}


@pytest.mark.parametrize("by_url", (True, False))
def test_a_task_is_found_by_its_id_and_by_its_url(
    run: Run, script: Script, *, by_url: bool
) -> None:
    script.say(STATUS, progress("STARTED"))
    words = (script.url + STATUS,) if by_url else (TASK, "--server", script.url)
    result = run("status", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["state", "STARTED"]


@pytest.mark.parametrize("flags", ((), ("--json",)))
def test_regions_are_named_but_their_links_are_not_shown(
    run: Run, script: Script, flags: tuple[str, ...]
) -> None:
    script.say(STATUS, progress("SUCCESS", s3_urls=LINKS))
    result = run("status", TASK, "--server", script.url, *flags)
    assert result.exit_code == 0
    assert "us-east-1" in result.stdout
    assert "X-Amz" not in result.output


def test_json_is_what_the_server_says_but_for_the_links(run: Run, script: Script) -> None:
    script.say(STATUS, progress("SUCCESS", s3_urls=LINKS, attempt=2))
    told = json.loads(run("status", TASK, "--server", script.url, "--json").stdout)
    assert told["attempt"] == 2
    assert told["regions"] == ["us-east-1", "us-west-2"]


def test_watching_ends_with_the_task(run: Run, script: Script) -> None:
    script.say(STATUS, progress("PENDING"), progress("STARTED"), progress("SUCCESS"))
    result = run("status", TASK, "--server", script.url, "--watch", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "SUCCESS"


@pytest.mark.parametrize("flags", ((), ("--watch",)))
def test_a_failed_task_is_shown_and_ends_with_1(
    run: Run, script: Script, flags: tuple[str, ...]
) -> None:
    script.say(STATUS, progress("FAILURE", error={"code": "wrong_root", "message": "two roots"}))
    result = run("status", TASK, "--server", script.url, *flags)
    assert result.exit_code == 1
    assert "wrong_root: two roots" in result.stdout


def test_a_server_that_is_down_is_to_be_tried_later(run: Run, script: Script) -> None:
    script.say(STATUS, problem(503, "engine_unavailable"))
    result = run("status", TASK, "--server", script.url)
    assert result.exit_code == 75
    assert "engine_unavailable" in result.stderr


def test_a_wait_ends_with_a_change(run: Run, script: Script) -> None:
    pending = Said(body=progress("PENDING").body, headers={"ETag": 'W/"1"'})
    script.say(STATUS, pending, progress("STARTED"))
    result = run("status", TASK, "--server", script.url, "--wait", "7", "--json")
    assert json.loads(result.stdout)["state"] == "STARTED"
    assert [target for target, _ in script.asked] == [STATUS, f"{STATUS}?wait=7"]
