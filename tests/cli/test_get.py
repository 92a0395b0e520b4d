"""``archiver get``, against every way in which a server may answer it."""

import hashlib
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import Run, Said, Script

CONTENT = b"the bytes of an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PART = f"here.{SHA256[:12]}.part"
"""The name of what is to become ``here``, until all of it is there."""
NODE = "42bf" * 10
ASKED = "/archiver/hgmo/projects/ash/default"
ASKED_AGAIN = f"/archiver/hgmo/projects/ash/{NODE}"
STATUS = "/archiver/status/hgmo:projects:ash"
OBJECT = "/bucket/archives/v1/ash-42bf42bf42bf.tar.gz"
WORDS = ("get", "hgmo", "projects/ash", "default")
SIGNATURE = "X-Amz-Signature=0123456789abcdef"


def problem(status: int, code: str) -> Said:
    body = json.dumps({"code": code, "detail": f"because of {code}"}).encode()
    return Said(status=status, body=body, headers={"Content-Type": "application/problem+json"})


def progress(state: str, **members: object) -> Said:
    result = {"state": state, "status": "", "phase": "fetching", "bytes_done": 7, "s3_urls": {}}
    return Said(body=json.dumps({"result": result | members}).encode())


@pytest.fixture
def hit(script: Script) -> Said:
    return Said(
        status=302,
        headers={
            "Location": f"{script.url}{OBJECT}?{SIGNATURE}",
            "Archiver-SHA256": SHA256,
            "Archiver-Size": str(len(CONTENT)),
            "Archiver-Node": NODE,
            "Archiver-Region": "us-west-2",
        },
    )


@pytest.fixture
def miss(script: Script) -> Said:
    return Said(
        status=202,
        headers={"Location": f"{script.url}{STATUS}", "Retry-After": "1"},
        body=b'{"result": {}}',
    )


def test_a_hit_is_downloaded_under_its_own_name(
    run: Run, script: Script, hit: Said, tmp_path: Path
) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ash-42bf42bf42bf.tar.gz").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["ash-42bf42bf42bf.tar.gz"]
    assert result.stdout == ""
    assert SHA256 in result.stderr


@pytest.mark.parametrize("rev", ("@", "REL/2.0", "a#b?c&d=%2F", "caf\xe9", "..", "a+b", ""))
def test_a_rev_that_a_proxy_may_change_in_a_path_is_sent_as_a_parameter(
    run: Run, script: Script, rev: str
) -> None:
    script.say("/archiver/hgmo/projects/ash", problem(404, "unknown_rev"))
    assert run("get", "hgmo", "projects/ash", rev, "--server", script.url).exit_code == 3
    query = urlsplit(script.asked[0][0]).query
    assert parse_qs(query, keep_blank_values=True) == {"rev": [rev], "suffix": ["tar.gz"]}


def test_a_miss_is_waited_for_and_asked_for_again(
    run: Run, script: Script, hit: Said, miss: Said, tmp_path: Path
) -> None:
    script.say(ASKED, miss, hit)
    script.say(STATUS, progress("PENDING"), progress("STARTED"), progress("SUCCESS"))
    script.say(OBJECT, Said(body=CONTENT))
    result = run(*WORDS, "--server", script.url, "-o", "here", "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "here").read_bytes() == CONTENT
    told = json.loads(result.stdout)
    assert told.pop("duration_s") > 0
    assert told == {
        "file": "here",
        "sha256": SHA256,
        "size": len(CONTENT),
        "node": NODE,
        "region": "us-west-2",
        "waited": True,
    }
    assert [path.partition("?")[0] for path, _ in script.asked] == [
        ASKED,
        *[STATUS] * 3,
        ASKED,
        OBJECT,
    ]


def test_what_is_wanted_is_asked_for(run: Run, script: Script) -> None:
    run(
        *("get", "hgmo", "projects/a b", "v1/2"),
        *("--subdir", "testing/mozharness", "--suffix", "zip", "--region", "eu"),
        *("--server", script.url + "/"),
    )
    assert script.asked[0][0] == (
        "/archiver/hgmo/projects/a%20b"
        "?rev=v1/2&subdir=testing/mozharness&suffix=zip&preferred_region=eu"
    )


def test_the_server_may_come_from_the_environment(run: Run, script: Script) -> None:
    run(*WORDS, ARCHIVER_URL=script.url)
    assert len(script.asked) == 1


def test_standard_output_gets_nothing_but_the_archive(run: Run, script: Script, hit: Said) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    result = run(*WORDS, "--server", script.url, "-o", "-")
    assert result.exit_code == 0
    assert result.stdout_bytes == CONTENT


def test_s3_is_sent_no_credentials_and_takes_the_link_as_it_is(
    run: Run, script: Script, hit: Said
) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    run(*WORDS, "--server", script.url)
    path, headers = script.asked[-1]
    assert path == f"{OBJECT}?{SIGNATURE}"
    assert not {"authorization", "cookie"} & {name.lower() for name in headers}


@pytest.mark.parametrize("flag", ("--quiet", "--json", None))
def test_a_presigned_url_is_never_shown(
    run: Run, script: Script, hit: Said, flag: str | None
) -> None:
    script.say(ASKED, hit)
    for said in (
        Said(body=CONTENT),
        Said(body=b"other"),
        Said(status=403, body=SIGNATURE.encode()),
    ):
        script.say(OBJECT, said)
        words = (*WORDS, "--server", script.url, "--force", "--retries", "0")
        result = run(*words, *([flag] if flag else []))
        assert "X-Amz" not in result.output


@pytest.mark.parametrize("output", ("here", "-"))
def test_other_bytes_than_promised_end_with_5(
    run: Run, script: Script, hit: Said, tmp_path: Path, output: str
) -> None:
    script.say(ASKED, hit)
    script.say(ASKED_AGAIN, hit)
    script.say(OBJECT, Said(body=CONTENT[:-1] + b"!"))
    result = run(*WORDS, "--server", script.url, "-o", output)
    assert result.exit_code == 5
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_when_the_new_one_is_not_whole(
    run: Run, script: Script, hit: Said, tmp_path: Path
) -> None:
    (tmp_path / "here").write_text("older")
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT[:100], headers={"Content-Length": str(len(CONTENT))}))
    result = run(*WORDS, "--server", script.url, "-o", "here", "--retries", "0")
    assert result.exit_code == 75
    assert (tmp_path / "here").read_text() == "older"
    assert (tmp_path / PART).read_bytes() == CONTENT[:100]
    assert f"{PART} is kept" in result.stderr


def test_a_task_that_failed_ends_it_at_once_with_its_reason(
    run: Run, script: Script, miss: Said
) -> None:
    script.say(ASKED, miss)
    error = {"code": "corrupt_archive", "message": "a block was not what its sum says"}
    script.say(STATUS, progress("FAILURE", error=error))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 1
    assert "corrupt_archive: a block was not what its sum says" in result.stderr


@pytest.mark.parametrize(
    ("said", "exit_code"),
    (
        (problem(400, "invalid_request"), 2),
        (problem(404, "unknown_rev"), 3),
        (problem(502, "source_unavailable"), 75),
        (problem(503, "engine_unavailable"), 75),
        (problem(504, "source_timeout"), 75),
        (problem(500, "internal_error"), 1),
        (Said(status=400, body=b"[" * 100_000), 2),
        (Said(status=404, body=b'{"code": ["a"], "detail": 7, "allowed": {}}'), 3),
        (Said(status=200, body=b"a web page"), 1),
        (Said(status=302, headers={"Location": "http://127.0.0.1:1/"}), 1),
        (Said(status=202), 1),
        (Said(status=202, headers={"Location": "/archiver/status/x"}), 1),
        (Said(status=202, headers={"Location": "http://[::1/"}), 1),
    ),
)
def test_an_exit_code_says_what_a_refusal_means(
    run: Run, script: Script, said: Said, exit_code: int
) -> None:
    script.say(ASKED, said)
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == exit_code
    assert result.stderr.startswith("Error: ")
    assert result.stdout == ""


def test_an_unknown_subdir_found_out_by_the_task_is_not_found(
    run: Run, script: Script, miss: Said
) -> None:
    script.say(ASKED, miss)
    error = {"code": "unknown_subdir", "message": "no file is there"}
    script.say(STATUS, progress("FAILURE", error=error))
    assert run(*WORDS, "--server", script.url).exit_code == 3


def test_a_server_that_does_not_answer_is_to_be_tried_later(run: Run) -> None:
    result = run(*WORDS, "--server", "http://127.0.0.1:9")
    assert result.exit_code == 75
    assert "127.0.0.1:9 does not respond" in result.stderr


def test_an_archive_that_never_comes_ends_with_4(run: Run, script: Script, miss: Said) -> None:
    script.say(ASKED, miss)
    script.say(STATUS, progress("STARTED"))
    result = run(*WORDS, "--server", script.url, "--timeout", "0.5")
    assert result.exit_code == 4


def test_polling_survives_a_server_that_is_away_for_a_while(
    run: Run, script: Script, hit: Said, miss: Said
) -> None:
    script.say(ASKED, miss, hit)
    script.say(STATUS, problem(503, "engine_unavailable"), progress("SUCCESS"))
    script.say(OBJECT, Said(body=CONTENT))
    assert run(*WORDS, "--server", script.url).exit_code == 0


@pytest.mark.parametrize(
    ("segment", "name"),
    (
        ("a%2F..%2F..%2Fetc", "etc"),
        (".hidden", "hidden"),
        ("%0A", "archive"),
        ("a%20b", "a-b"),
        ("a" + "-rf" + "x" * 197, "rf" + "x" * 197),
        ("a" + ".bashrc" + "x" * 193, "bashrc" + "x" * 193),
        ("a" + "-." * 100, "archive"),
    ),
)
def test_a_name_from_the_server_is_only_a_name(
    run: Run, script: Script, hit: Said, tmp_path: Path, segment: str, name: str
) -> None:
    path = f"/bucket/{segment}"
    script.say(ASKED, Said(status=302, headers={**hit.headers, "Location": script.url + path}))
    script.say(path, Said(body=CONTENT))
    assert run(*WORDS, "--server", script.url).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "words",
    (
        (*WORDS, "-o", "-", "--json"),
        (*WORDS, "--server", "ftp://example.org"),
        ("get", "hgmo"),
        ("no-such-command",),
    ),
)
def test_wrong_usage_ends_with_2(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_a_file_that_cannot_be_written_is_named(run: Run, script: Script, hit: Said) -> None:
    script.say(ASKED, hit)
    script.say(OBJECT, Said(body=CONTENT))
    result = run(*WORDS, "--server", script.url, "-o", "no/such/folder")
    assert result.exit_code == 1
    assert "no/such/folder: No such file or directory" in result.stderr


def test_a_server_that_tags_its_answers_is_asked_to_hold_the_next_one(
    run: Run, script: Script, hit: Said, miss: Said
) -> None:
    pending, unchanged = progress("PENDING"), Said(status=304)
    tagged = Said(body=pending.body, headers={"ETag": 'W/"1"'})
    script.say(ASKED, miss, hit)
    script.say(STATUS, tagged, unchanged, problem(503, "too_many_waiters"), progress("SUCCESS"))
    script.say(OBJECT, Said(body=CONTENT))
    result = run(*WORDS, "--server", script.url)
    assert result.exit_code == 0, result.output
    asked = [
        (target.removeprefix(STATUS), headers.get("If-None-Match"))
        for target, headers in script.asked
        if target.startswith(STATUS)
    ]
    held = ("?wait=10", 'W/"1"')
    assert asked == [("", None), held, held, ("", None)]


def test_a_wait_that_was_too_short_is_to_be_tried_later(
    run: Run, script: Script, miss: Said
) -> None:
    script.say(ASKED, miss)
    script.say(STATUS, progress("STARTED"))
    result = run(*WORDS, "--server", script.url, "--wait", "0.1")
    assert result.exit_code == 75
    assert "still being built after 0.1 s" in result.stderr
