"""``archiver config``, and the settings that every command reads."""

import pwd
import re
import tempfile
import tomllib
from pathlib import Path
from typing import NoReturn

import pytest

from tests.parts.commands import Run
from tests.parts.process import free_port

CONFIG = """
[engine]
url = "nats://me:hunter2@n1:4222,nats://n2:4222"

[regions.us-east-1]
bucket = "archives"
endpoint = "https://s3.example.org"
access_key_id = "AKID"
secret_access_key = "hunter2"
"""


def test_show_hides_every_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archiver.toml").write_text(CONFIG)
    result = run("config", "show")
    assert result.exit_code == 0, result.output
    assert "hunter2" not in result.output
    shown = tomllib.loads(result.stdout)
    assert shown["engine"].items() >= {
        ("url", "nats://***@n1:4222,nats://n2:4222"),
    }
    assert shown["regions"]["us-east-1"]["access_key_id"] == "AKID"
    assert shown["regions"]["us-east-1"]["secret_access_key"] == "***"  # noqa: S105


@pytest.mark.parametrize(
    "setting",
    (
        "engine.url = 'nats://me:hun@ter2@n1:4222'",
        "engine.url = 'nats://me:hun/ter2@n1:4222'",
        "engine.url = 'nats://me:hun,ter2@n1:4222'",
        "engine.url = 'nats://me:1,ter2@n1:4222'",
        "engine.url = 'me:hunter2@n1:4222'",
        "engine.url = 'nats://n1:hunter2'",
        "engine.url = 'nats://n1:4222/hunter2'",
        "engine.url = 'nats://me:hunter2@n1,nats://me:hunter3@n2'",
        "server.public_url = 'https://me:hun/ter2@archiver.example.org'",
        "regions.a = {bucket = 'abc', endpoint = 'https://me:hun/ter2@s3.example.org'}",
        "regions.a = {bucket = 'abc', public_endpoint = 'https://me:hunter2@s3.example.org'}",
        "sources.a.url_template = 'https://me:hunter2@hg/{repo}/archive/{rev}.{suffix}/{subdir}'",
        "sources.a.url_template = 'https://me:hun/ter@hg/{repo}/archive/{rev}.{suffix}/{subdir}'",
        "sources.hgmo.redirect_hosts = ['me:hunter2@elsewhere']",
    ),
)
@pytest.mark.parametrize("command", ("check", "show"))
def test_a_password_that_could_be_parsed_as_a_host_is_rejected_and_not_shown(
    run: Run, tmp_path: Path, setting: str, command: str
) -> None:
    (tmp_path / "archiver.toml").write_text(setting)
    result = run("config", command)
    assert result.exit_code == 2
    assert setting.partition(".")[0] in result.stderr
    assert not [part for part in ("hun", "ter2", "ter@") if part in result.output]


def test_show_prints_toml_with_the_same_meaning(run: Run, tmp_path: Path) -> None:
    unusual = {"ARCHIVER_WORKER__CONCURRENCY": "7", "ARCHIVER_DATA_DIR": "/\x9b[31m\x7f\u202eé"}
    unusual["ARCHIVER_RETENTION__RULES"] = '[{"keep": true}, {"repos": ["a\\""], "days": 3}]'
    shown = run("config", "show", **unusual).stdout
    assert all(line.isprintable() for line in shown.split("\n"))
    (tmp_path / "archiver.toml").write_text(shown)
    assert tomllib.loads(run("config", "show").stdout) == tomllib.loads(shown)
    assert tomllib.loads(shown)["worker"]["concurrency"] == 7
    assert tomllib.loads(shown)["retention"]["rules"] == [
        {"sources": ["*"], "repos": ["*"], "keep": True},
        {"sources": ["*"], "repos": ['a"'], "keep": False, "days": 3},
    ]
    assert tomllib.loads(shown)["data_dir"] == unusual["ARCHIVER_DATA_DIR"]


def test_show_prints_exactly_the_effective_sources(run: Run, tmp_path: Path) -> None:
    template = "https://hg.example/{repo}/archive/{rev}.{suffix}/{subdir}"
    assert [*tomllib.loads(run("config", "show").stdout)["sources"]] == ["hgmo"]
    (tmp_path / "archiver.toml").write_text(f'[sources.x]\nurl_template = "{template}"\n')
    assert [*tomllib.loads(run("config", "show").stdout)["sources"]] == ["x"]


@pytest.mark.parametrize("command", ("config check", "config show", "serve", "worker", "audit"))
def test_a_variable_without_a_setting_is_reported_with_exit_code_2(run: Run, command: str) -> None:
    result = run(*command.split(), ARCHIVER_SERVR__LISTEN="127.0.0.1:1")
    assert result.exit_code == 2
    assert "ARCHIVER_SERVR__LISTEN: no such setting" in result.stderr


@pytest.mark.parametrize("command", ("config check", "config show", "serve", "web", "worker"))
def test_a_wrong_setting_is_reported_with_exit_code_2(
    run: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "other.toml").write_text('[engine]\nlease_s = "hunter2"\n')
    result = run(*command.split(), "--config", "other.toml")
    assert result.exit_code == 2
    assert "engine.lease_s" in result.stderr
    assert "hunter2" not in result.output


def test_check_reports_a_missing_file_and_the_effective_settings(run: Run, tmp_path: Path) -> None:
    result = run("config", "check", ARCHIVER_SERVER__LISTEN="127.0.0.1:8020", ARCHIVER_URL="x")
    assert result.exit_code == 0
    first, environment, *places = result.stdout.splitlines()
    assert first.startswith(f"There is no archiver.toml in {tmp_path}, and neither --config nor")
    assert environment == "Environment variables in effect: ARCHIVER_SERVER__LISTEN"
    assert [line.split(maxsplit=1) for line in places] == [
        ["serves", "http://127.0.0.1:8020"],
        ["engine", "not set: `archiver serve` starts one"],
        ["regions", "not set: `archiver serve` starts us-east-1 and us-west-2"],
        ["sources", "hgmo"],
        ["expiry", "everything is kept"],
        ["data", f"{tmp_path}/nowhere/archiver"],
    ]


@pytest.mark.parametrize("named", (True, False))
def test_check_names_the_file_it_read(run: Run, tmp_path: Path, *, named: bool) -> None:
    path = tmp_path / ("other.toml" if named else "archiver.toml")
    path.write_text(CONFIG)
    result = run("config", "check", *(("--config", "other.toml") if named else ()))
    assert result.stdout.startswith(f"{path} is valid.\n")
    assert "  engine   nats://***@n1:4222,nats://n2:4222\n" in result.stdout
    assert "hunter2" not in result.output


@pytest.mark.parametrize("command", ("config check", "config show", "audit"))
def test_no_home_directory_is_needed(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def unknown(_number: int) -> NoReturn:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    result = run(*command.split(), XDG_DATA_HOME="")
    assert isinstance(result.exception, SystemExit | None)
    assert "/var/lib/archiver" in result.output


def test_an_unusable_temporary_folder_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    result = run(
        "web",
        ARCHIVER_SERVER__LISTEN=f"127.0.0.1:{free_port()}",
        ARCHIVER_ENGINE__URL="nats://127.0.0.1:1",
        ARCHIVER_REGIONS='{"us-east-1": {"bucket": "bucket"}}',
    )
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path}/gone/archiver-metrics-")
    assert result.stderr.endswith("No such file or directory\n")


def test_a_missing_file_is_named(run: Run) -> None:
    result = run("config", "check", "--config", "nowhere.toml")
    assert result.exit_code == 2
    assert "nowhere.toml" in result.stderr


@pytest.mark.parametrize("command", ("config check", "serve", "web"))
def test_an_unreadable_file_is_reported_with_its_setting(
    run: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "ranges.json").write_text("hunter2")
    result = run(
        *command.split(),
        ARCHIVER_SERVER__AWS_RANGES="ranges.json",
        ARCHIVER_ENGINE__URL="nats://127.0.0.1:1",
        ARCHIVER_REGIONS='{"a": {"bucket": "bucket"}}',
    )
    assert result.exit_code == 2
    assert "server.aws_ranges: the file is malformed" in result.stderr
    assert "hunter2" not in result.output


def test_help_lists_every_command(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in ("serve", "web", "worker", "get", "status", "audit", "config", "demo"):
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("command", ("web", "worker"))
def test_a_process_without_engine_or_regions_names_the_missing_setting(
    run: Run, command: str
) -> None:
    lonely = run(command)
    assert lonely.exit_code == 2
    assert "engine.url" in lonely.stderr
    without_buckets = run(command, ARCHIVER_ENGINE__URL="nats://127.0.0.1:1")
    assert without_buckets.exit_code == 2
    assert "regions" in without_buckets.stderr


GIT = """
[sources.forge]
kind = "git"
url_template = "https://git.example.org/{repo}.git"
"""


def test_check_names_the_git_program_that_workers_would_use(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archiver.toml").write_text(GIT)
    result = run("config", "check")
    assert result.exit_code == 0
    assert re.search(r"^  git      /\S+/git, version \d+\.\d+\.\d+$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", ("config check", "worker", "serve"))
def test_a_git_that_is_too_old_is_reported(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "archiver.toml").write_text(GIT)
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\necho git version 2.39.0; echo {tmp_path}\n")
    program.chmod(0o755)
    result = run(
        *command.split(),
        PATH=str(tmp_path),
        ARCHIVER_ENGINE__URL="nats://127.0.0.1:1",
        ARCHIVER_REGIONS='{"us-east-1": {"bucket": "bucket"}}',
    )
    assert result.exit_code == (0 if command == "config check" else 2)
    assert "is git 2.39.0: version 2.39.1 or later is required" in result.output


TOKEN_FILES = {
    "absent": None,
    "empty": b" \n",
    "two words": b"hunter2 hunter3\n",
    "two lines": b"hunter2\nhunter3\n",
    "not text": b"hunter2\xff\xfe",
    "too long": b"hunter2" + b" " * 20_000,
}


@pytest.mark.parametrize("command", ("config check", "serve", "web", "worker", "audit"))
@pytest.mark.parametrize("content", TOKEN_FILES.values(), ids=TOKEN_FILES)
def test_a_token_file_without_a_token_is_reported_with_its_source_before_anything_starts(
    run: Run, tmp_path: Path, command: str, content: bytes | None
) -> None:
    (tmp_path / "archiver.toml").write_text(f'{GIT}token_file = "token"\n')
    if content is None:
        expected = "cannot be read: No such file or directory"
    else:
        (tmp_path / "token").write_bytes(content)
        expected = "must contain one token and nothing else"
    result = run(
        *command.split(),
        ARCHIVER_ENGINE__URL="nats://127.0.0.1:1",
        ARCHIVER_REGIONS='{"us-east-1": {"bucket": "bucket"}}',
    )
    assert result.exit_code == 2
    assert result.stderr == f"Error: sources.forge.token_file: {expected}\n"
    assert "hunter" not in result.output


def test_every_source_without_its_token_is_reported(run: Run, tmp_path: Path) -> None:
    second = GIT.replace("forge", "other")
    (tmp_path / "archiver.toml").write_text(
        f'{GIT}token_file = "absent"\n{second}token_file = "."\n'
    )
    result = run("config", "check")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: sources.forge.token_file: cannot be read: No such file or directory\n"
        "sources.other.token_file: cannot be read: Is a directory\n"
    )


def test_a_token_may_have_white_space_around_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "archiver.toml").write_text(f'{GIT}token_file = "token"\n')
    (tmp_path / "token").write_text("  hunter2\r\n")
    result = run("config", "check")
    assert result.exit_code == 0, result.output
    assert "hunter" not in result.output


def test_show_prints_only_the_settings_that_apply_to_the_kind_of_a_source(
    run: Run, tmp_path: Path
) -> None:
    template = "https://hg.example/{repo}/archive/{rev}.{suffix}/{subdir}"
    (tmp_path / "archiver.toml").write_text(f'{GIT}[sources.hg]\nurl_template = "{template}"\n')
    result = run("config", "show")
    shown = tomllib.loads(result.stdout)["sources"]
    both = {"kind", "url_template", "concurrency", "max_bytes", "redirect_hosts"}
    assert both <= shown["forge"].keys() & shown["hg"].keys()
    assert shown["forge"].keys() - shown["hg"].keys() == {
        *("root", "attributes", "reachable", "token_user", "lfs_hosts"),
        *("submodule_urls", "submodule_concurrency", "max_submodules", "max_submodule_depth"),
    }
    assert shown["hg"].keys() - shown["forge"].keys() == {"suffixes", "subdirs", "completeness"}
    forge, hg = result.stdout.split("[sources.hg]")
    assert "# token_file is not set" in forge
    assert "# fetch_suffix is not set" not in forge
    assert "# fetch_suffix is not set" in hg
    assert "# token_file is not set" not in hg
    (tmp_path / "archiver.toml").write_text(result.stdout)
    assert tomllib.loads(run("config", "show").stdout) == tomllib.loads(result.stdout)


@pytest.mark.parametrize(
    ("variable", "value", "warning"),
    (
        ("OTEL_TRACES_EXPORTER", "zipkin", "unsupported 'zipkin'"),
        ("OTEL_TRACES_SAMPLER", "bogus", "unsupported 'bogus'"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "No such file or directory"),
    ),
)
def test_check_warns_of_traces_that_cannot_be_sent(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    warning: str,
) -> None:
    (tmp_path / "archiver.toml").write_text(CONFIG)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(variable, value)
    result = run("config", "check")
    assert result.exit_code == 0, result.output
    assert f"Warning: {variable}: {warning}" in result.stderr
