"""All commands share options, and report failures in the same way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from archiver.cli import main
from tests.parts.commands import Run
from tests.parts.json_output import SAME, documents, tables

UNENDING = {"serve", "web", "worker", "demo"}
"""They run until a signal ends them, and log."""
SCRIPTS = {"completion"}
"""Their output is for a shell."""


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield " ".join((*path, name)), command


COMMANDS = {name: command for name, command in leaves(main) if name not in UNENDING | SCRIPTS}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_json_and_quiet(name: str) -> None:
    options = {word for each in COMMANDS[name].params for word in each.opts}
    assert "--json" in options
    assert "--quiet" in options


def test_the_json_of_each_command_is_described() -> None:
    assert tables().keys() == {SAME.get(name, name) for name in COMMANDS}
    assert all(tables().values())


def test_a_failure_says_what_to_do_next_and_is_json_as_well(run: Run) -> None:
    result = run("get", "hgmo", "repo", "tip", "--server", "http://127.0.0.1:1", "--json")
    assert result.exit_code == 75
    first, hint = result.stderr.splitlines()
    assert first.startswith("Error: 127.0.0.1:1 does not respond")
    assert hint.startswith("Hint: Run the same command again later.")
    error = json.loads(result.stdout)["error"]
    assert (error["code"], error["exit_code"]) == ("try_again", 75)
    assert f"Error: {error['message']}" == first
    assert f"Hint: {error['hint']}" == hint


def test_wrong_options_are_json_as_well(run: Run) -> None:
    result = run("get", "hgmo", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["message"] == "Missing argument 'REPO'."


def test_an_option_that_a_command_lacks_is_json_as_well(run: Run) -> None:
    result = run("fsck", "--bogus", "--json")
    assert result.exit_code == 2
    assert "--bogus" in json.loads(result.stdout)["error"]["message"]


def test_a_mistyped_command_is_answered_with_a_similar_one(run: Run) -> None:
    assert "Did you mean get" in run("gte").output
    assert "No such command 'zzzz'" in run("zzzz").output


def test_json_before_the_subcommand_counts(run: Run) -> None:
    result = run("pins", "--json", "add", "no task", "--reason", "why")
    assert json.loads(result.stdout)["error"]["code"] == "invalid_usage"


def test_an_unknown_name_is_answered_with_the_known_ones(run: Run) -> None:
    regions = {
        "ARCHIVER_REGIONS": '{"us-east-1": {"bucket": "bucket"}, "eu-west-1": {"bucket": "other"}}'
    }
    engine = {"ARCHIVER_ENGINE__URL": "nats://127.0.0.1:1"}
    result = run("fill", "us-west-2", **regions, **engine)
    assert result.exit_code == 2
    assert "Hint: They have these: us-east-1, eu-west-1." in result.stderr


def test_the_settings_as_json_hide_secrets(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archiver.toml").write_text(
        '[regions.us-east-1]\nbucket = "bucket"\n'
        'access_key_id = "id"\nsecret_access_key = "precious"\n'
    )
    shown = run("config", "show", "--json")
    assert "precious" not in shown.stdout
    (settings,) = documents(shown.stdout)
    assert settings["regions"]["us-east-1"]["bucket"] == "bucket"
    (checked,) = documents(run("config", "check", "--json").stdout)
    assert checked["parts"]["regions"] == "us-east-1"
    assert checked["file"] == str(tmp_path / "archiver.toml")
    (tmp_path / "archiver.toml").write_text("[server]\nlisten = 5")
    assert run("config", "check", "--json").exit_code == 2


def test_a_token_as_json(run: Run) -> None:
    result = run("token", "create", "ci", "--json")
    (created,) = documents(result.stdout)
    assert result.stderr == ""
    assert "[tokens.ci]" in created["settings"]
    assert created["token"] not in created["settings"]


def test_a_failure_does_not_wait_for_the_reader_of_json(tmp_path: Path) -> None:
    """The pipe is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    words = ("get", "hgmo", "repo", "tip", "--server", "http://127.0.0.1:1", "--json")
    process = subprocess.run(
        [sys.executable, "-m", "archiver", *words],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(reader)
    os.close(writer)
    assert process.returncode == 75
    assert process.stderr.startswith(b"Error: ")
