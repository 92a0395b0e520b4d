"""The client of LFS files: faults of hosts, hosts that are not allowed, and secrets."""

import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from archiver.errors import (
    ArchiverError,
    BadLfsFile,
    ForbiddenAddress,
    LfsFileMissing,
    LfsRefused,
    SourceBusy,
    SourceError,
    SourceRefused,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
)
from archiver.git_objects.lfs_pointer import Pointer
from archiver.sources.git.lfs.batch import HEADERS_MAX, RESPONSE_MAX_BYTES
from tests.parts.faulty_host import (
    Break,
    FaultyHost,
    Forever,
    Pause,
    Step,
    chunked,
    head,
    sized,
    until_close,
)
from tests.parts.git_host import REPO, GitHost
from tests.parts.lfs_host import ChangeAnswer, Json, LfsResponse
from tests.sources.git_hosts import SOURCE
from tests.sources.lfs_files import download

CONTENT = bytes(range(256)) * 4096
OTHER = CONTENT[:-1] + b"!"
TOKEN = "s3cr3t-token"  # noqa: S105 - of a host of the tests
AUTHORIZATION = f"Basic {b64encode(f'x-access-token:{TOKEN}'.encode()).decode()}"
SIGNED = "/there?X-Amz-Signature=s1gn4tur3"


@pytest.fixture
def pointer(git_host: GitHost) -> Pointer:
    return git_host.lfs.add(REPO, CONTENT)


def linked(href: str, **action: object) -> ChangeAnswer:
    """Return a change that has all files at *href*."""

    def change(answer: Json) -> None:
        for each in answer["objects"]:
            each["actions"] = {"download": {"href": href, **action}}

    return change


def host_of(other: FaultyHost) -> str:
    return f"127.0.0.1:{other.port}"


def get_elsewhere(git_host: GitHost, other: FaultyHost, pointer: Pointer, *steps: Step) -> bytes:
    """Download from another host, which lfs_hosts has and which plays *steps*."""
    git_host.lfs.change = linked(other.script(SIGNED, *steps))
    return download(
        git_host.template,
        pointer,
        lfs_hosts=(host_of(other),),
        read_timeout=timedelta(seconds=1),
        deadline=timedelta(seconds=5),
        min_rate_bytes_s=1000,
        min_rate_window=timedelta(seconds=1),
    )


def test_a_file_comes_from_its_host(git_host: GitHost, pointer: Pointer) -> None:
    assert download(git_host.template, pointer) == CONTENT

    (batch,) = git_host.lfs.batches
    assert batch.target == f"/{REPO}.git/info/lfs/objects/batch"
    assert (
        batch.headers["accept"] == batch.headers["content-type"] == "application/vnd.git-lfs+json"
    )
    assert json.loads(batch.body) == {
        "operation": "download",
        "transfers": ["basic"],
        "hash_algo": "sha256",
        "objects": [{"oid": pointer.sha256, "size": len(CONTENT)}],
    }


@pytest.mark.parametrize("end", ("", ".git", "/", ".git/"))
def test_the_address_of_lfs_follows_from_that_of_the_repository(
    git_host: GitHost, pointer: Pointer, end: str
) -> None:
    template = f"{git_host.url}/{{repo}}{end}"

    assert download(template, pointer) == CONTENT


# The batch API.


def objects(change: Callable[[Json], object]) -> ChangeAnswer:
    """Return a change of each file in a response."""

    def change_all(answer: Json) -> None:
        for each in answer["objects"]:
            change(each)

    return change_all


def action(change: Callable[[Json], object]) -> ChangeAnswer:
    """Return a change of the action of each file."""
    return objects(lambda each: change(each["actions"]["download"]))


def failing(code: object) -> ChangeAnswer:
    return objects(lambda each: each.update(error={"code": code, "message": "no"}))


HARMLESS: Mapping[str, ChangeAnswer] = {
    "unknown members": objects(lambda each: each.update(more={"a": [1, None]})),
    "a null error": objects(lambda each: each.update(error=None)),
    "no transfer": lambda answer: answer.pop("transfer"),
    "an empty transfer": lambda answer: answer.update(transfer=""),
    "no hash": lambda answer: answer.pop("hash_algo"),
    "a null header": action(lambda each: each.update(header=None)),
    "an upload action": objects(lambda each: each["actions"].update(upload={"href": "x"})),
    "an expiry in the future": action(lambda each: each.update(expires_in=3600)),
    "an expiry in the year 1": action(lambda each: each.update(expires_at="0001-01-01T00:00:00Z")),
    "an expiry that is no time": action(lambda each: each.update(expires_at="soon")),
    "headers that are not sent": action(
        lambda each: each.update(header={"Cookie": "a=b", "Host": "a", "Transfer-Encoding": "x"})
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_oddities_of_a_response_do_no_harm(git_host: GitHost, pointer: Pointer, name: str) -> None:
    git_host.lfs.change = HARMLESS[name]

    assert download(git_host.template, pointer) == CONTENT
    (got,) = git_host.lfs.downloads
    assert "cookie" not in got.headers
    assert "transfer-encoding" not in got.headers
    assert len(git_host.lfs.batches) == 1


FAULTS: Mapping[str, tuple[ChangeAnswer, type[ArchiverError]]] = {
    "missing": (failing(404), LfsFileMissing),
    "removed": (failing(410), LfsFileMissing),
    "refused as invalid": (failing(422), LfsFileMissing),
    "without an action": (objects(lambda each: each.pop("actions")), LfsFileMissing),
    "without a download": (objects(lambda each: each.update(actions={})), LfsFileMissing),
    "busy": (failing(429), SourceBusy),
    "overloaded": (failing(503), SourceBusy),
    "broken": (failing(500), SourceUnavailable),
    "forbidden": (failing(403), SourceUnavailable),
    "with a code in words": (failing("404"), SourceUnavailable),
    "of another size": (objects(lambda each: each.update(size=1)), BadLfsFile),
    "without a size": (objects(lambda each: each.pop("size")), BadLfsFile),
    "another file": (objects(lambda each: each.update(oid="0" * 64)), SourceUnavailable),
    "a file too many": (
        lambda answer: answer["objects"].append({**answer["objects"][0], "oid": "0" * 64}),
        SourceUnavailable,
    ),
    "a file twice": (
        lambda answer: answer["objects"].append(answer["objects"][0]),
        SourceUnavailable,
    ),
    "no files": (lambda answer: answer.update(objects=[]), SourceUnavailable),
    "no list of files": (lambda answer: answer.pop("objects"), SourceUnavailable),
    "another transfer": (lambda answer: answer.update(transfer="multipart"), SourceUnavailable),
    "another hash": (lambda answer: answer.update(hash_algo="sha512"), SourceUnavailable),
    "too long": (
        lambda answer: answer.update(more="x" * RESPONSE_MAX_BYTES),
        SourceUnavailable,
    ),
    "too many headers": (
        action(lambda each: each.update(header={f"X-{n}": "" for n in range(HEADERS_MAX + 1)})),
        SourceUnavailable,
    ),
    "a header with a line feed": (
        action(lambda each: each.update(header={"X-A": "b\r\nHost: evil.example"})),
        SourceUnavailable,
    ),
    "a header beyond ASCII": (
        action(lambda each: each.update(header={"Authorization": "caf\xe9"})),
        SourceUnavailable,
    ),
    "an endless header": (
        action(lambda each: each.update(header={"X-A": "b" * 10_000})),
        SourceUnavailable,
    ),
    "a header that is a number": (
        action(lambda each: each.update(header={"X-A": 1})),
        SourceUnavailable,
    ),
    "a relative link": (linked("/files/1"), SourceUnavailable),
    "a link to a file": (linked("file:///etc/passwd"), SourceUnavailable),
    "a link with a line feed": (linked("http://127.0.0.1/\r\nX: y"), SourceUnavailable),
    "a link with a blank": (linked("http://127.0.0.1/a b"), SourceUnavailable),
    "an endless link": (linked("http://127.0.0.1/" + "a" * 10_000), SourceUnavailable),
    "a link to half an address": (linked("http://["), LfsRefused),
    "a link to no port": (linked("http://127.0.0.1:99999/"), LfsRefused),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_response_to_a_batch_is_an_error(
    git_host: GitHost, pointer: Pointer, name: str
) -> None:
    git_host.lfs.change, expected = FAULTS[name]

    with pytest.raises(ArchiverError) as caught:
        download(git_host.template, pointer)

    assert type(caught.value) is expected
    assert git_host.lfs.downloads == []


def test_a_missing_file_is_named(git_host: GitHost) -> None:
    pointer = Pointer("1" * 64, 5)

    with pytest.raises(LfsFileMissing, match=rf"'large\.bin' of {REPO}, with SHA-256 1{{64}}"):
        download(git_host.template, pointer)


NESTED = b'{"objects": ' + b"[" * 500_000
BODIES: Mapping[str, bytes] = {
    "nothing": b"",
    "a page": b"<html>",
    "a list": b"[]",
    "half of it": b'{"objects": [{"oid": "1',
    "other bytes than UTF-8": b'{"objects": "\xff"}',
    "deep nesting": NESTED,
    "deep nesting of another member": b'{"more": ' + b"[" * 500_000 + b"]" * 500_000 + b"}",
}


@pytest.mark.parametrize("name", BODIES)
def test_another_body_than_a_batch_is_an_error(
    git_host: GitHost, pointer: Pointer, name: str
) -> None:
    git_host.lfs.refusal = LfsResponse(body=BODIES[name])

    with pytest.raises(SourceUnavailable, match="Git LFS would not send"):
        download(git_host.template, pointer)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    (
        (401, {}, LfsRefused),
        (403, {}, LfsRefused),
        (403, {"Retry-After": "1"}, SourceBusy),
        (404, {}, LfsRefused),
        (405, {}, LfsRefused),
        (501, {}, LfsRefused),
        (422, {}, LfsRefused),
        (429, {}, SourceBusy),
        (500, {}, SourceUnavailable),
        (503, {}, SourceBusy),
        (202, {}, SourceUnavailable),
    ),
)
def test_the_status_of_a_batch_tells_errors_apart(
    git_host: GitHost,
    pointer: Pointer,
    status: int,
    headers: Mapping[str, str],
    expected: type[ArchiverError],
) -> None:
    git_host.lfs.refusal = LfsResponse(status=status, headers=headers)

    with pytest.raises(ArchiverError) as caught:
        download(git_host.template, pointer)

    assert type(caught.value) is expected


def test_a_refused_token_is_reported(git_host: GitHost, pointer: Pointer) -> None:
    git_host.lfs.refusal = LfsResponse(status=401)

    with pytest.raises(LfsRefused, match="token"):
        download(git_host.template, pointer, authorization=AUTHORIZATION)


JSON_HEAD = head({"Content-Type": "application/vnd.git-lfs+json", "Connection": "close"})

BATCHES: Mapping[str, tuple[tuple[Step, ...], type[SourceError]]] = {
    "silence": ((Pause(30),), SourceTimeout),
    "silence in the middle": ((JSON_HEAD, b'{"objects"', Pause(30)), SourceTimeout),
    "a slow drip": ((JSON_HEAD, Forever(b" ", every_s=0.1)), SourceTimeout),
    "an endless body": ((JSON_HEAD, Forever(b" " * 100_000)), SourceUnavailable),
    "a broken connection": ((sized(b'{"objects"', missing=9),), SourceUnavailable),
    "a reset": ((Break.RESET,), SourceUnavailable),
    "a redirect to another host": (
        (sized(b"", "307 There", {"Location": "http://127.0.0.1:1/"}),),
        ForbiddenAddress,
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_faulty_host_of_the_batch_api_is_an_error(other: FaultyHost, name: str) -> None:
    steps, expected = BATCHES[name]
    other.script(f"/{REPO}.git/info/lfs/objects/batch", *steps)

    with pytest.raises(SourceError) as caught:
        download(
            f"{other.url}/{{repo}}.git",
            Pointer("1" * 64, 5),
            lfs_hosts=("127.0.0.1:1",),
            read_timeout=timedelta(seconds=1),
            batch_deadline=timedelta(seconds=2),
        )

    assert type(caught.value) is expected


def test_the_question_of_a_batch_follows_a_renamed_repository(
    git_host: GitHost, other: FaultyHost, pointer: Pointer
) -> None:
    there = f"{git_host.url}/{REPO}.git/info/lfs/objects/batch"
    moved = sized(b"", "301 Moved", {"Location": there})
    other.script("/old/name.git/info/lfs/objects/batch", moved)
    own = git_host.url.removeprefix("http://")

    content = download(
        f"{other.url}/{{repo}}.git",
        pointer,
        repo="old/name",
        redirect_hosts=(own,),
        lfs_hosts=(own,),
        authorization=AUTHORIZATION,
    )

    assert content == CONTENT
    assert "authorization" not in git_host.lfs.batches[0].headers
    assert json.loads(git_host.lfs.batches[0].body)["operation"] == "download"


# Downloads.

SILENCE = Pause(30)

DOWNLOADS: Mapping[str, tuple[tuple[Step, ...], type[SourceError]]] = {
    "other bytes": ((sized(OTHER),), BadLfsFile),
    "fewer bytes": ((sized(CONTENT[:-1]),), BadLfsFile),
    "no bytes": ((sized(b""),), BadLfsFile),
    "more bytes, announced": ((head({"Content-Length": str(1 << 60)}), SILENCE), BadLfsFile),
    "more bytes, in chunks": ((chunked(CONTENT + b"!"),), BadLfsFile),
    "endless bytes": ((head({"Connection": "close"}), Forever(bytes(1 << 20))), BadLfsFile),
    "a packed file": ((sized(b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),), BadLfsFile),
    "the end too early": ((until_close(CONTENT[:-1]),), BadLfsFile),
    "a broken connection": ((sized(CONTENT[:100], missing=100),), SourceUnavailable),
    "a reset": ((sized(CONTENT[:100], missing=100), Break.RESET), SourceUnavailable),
    "silence": ((SILENCE,), SourceTimeout),
    "silence in the middle": ((sized(CONTENT[:100], missing=100), SILENCE), SourceTimeout),
    "a slow drip": ((head({"Connection": "close"}), Forever(b"x", every_s=0.2)), SourceTooSlow),
    "a part": ((sized(CONTENT, "206 Partial Content"),), SourceUnavailable),
    "an error": ((sized(b"", "500 Oh"),), SourceUnavailable),
    "a pause": ((sized(b"", "503 Busy"),), SourceBusy),
    "a limit": ((sized(b"", "403 Limit", {"Retry-After": "9"}),), SourceBusy),
    "no right": ((sized(b"", "401 Unauthorized"),), SourceRefused),
    "a link that has expired": ((sized(b"", "403 Forbidden"),), BadLfsFile),
    "a link that leads nowhere": ((sized(b"", "404 Not Found"),), BadLfsFile),
    "a link to what is gone": ((sized(b"", "410 Gone"),), BadLfsFile),
    "an endless redirect": ((sized(b"", "302 Found", {"Location": SIGNED}),), SourceRefused),
    "a redirect to another port": (
        (sized(b"", "302 Found", {"Location": "http://127.0.0.1:1/"}),),
        ForbiddenAddress,
    ),
    "a redirect to the metadata": (
        (sized(b"", "302 Found", {"Location": "http://169.254.169.254/latest"}),),
        ForbiddenAddress,
    ),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_faulty_download_is_an_error_without_secrets(
    git_host: GitHost, other: FaultyHost, pointer: Pointer, name: str
) -> None:
    steps, expected = DOWNLOADS[name]

    with capture_logs() as logs, pytest.raises(ArchiverError) as caught:
        get_elsewhere(git_host, other, pointer, *steps)

    assert type(caught.value) is expected
    assert "s1gn4tur3" not in caught.value.message
    assert "s1gn4tur3" not in repr(logs)


@pytest.mark.parametrize("response", (sized(CONTENT), chunked(CONTENT), until_close(CONTENT)))
def test_a_file_of_another_host_is_complete_in_every_framing(
    git_host: GitHost, other: FaultyHost, pointer: Pointer, response: bytes
) -> None:
    assert get_elsewhere(git_host, other, pointer, response) == CONTENT
    assert other.targets == [SIGNED]


def test_an_expired_link_is_replaced_once(git_host: GitHost, pointer: Pointer) -> None:
    def expire_first(answer: Json) -> None:
        if len(git_host.lfs.batches) == 1:
            linked(f"{git_host.url}/{REPO}.git/info/lfs/files/{'0' * 64}")(answer)

    git_host.lfs.change = expire_first

    assert download(git_host.template, pointer) == CONTENT
    assert len(git_host.lfs.batches) == 2


@pytest.mark.parametrize("expiry", ({"expires_in": -5}, {"expires_at": "2020-01-01T00:00:00Z"}))
def test_a_link_that_claims_to_have_expired_is_replaced_unseen(
    git_host: GitHost, pointer: Pointer, expiry: Mapping[str, object]
) -> None:
    git_host.lfs.change = action(lambda each: each.update(expiry))

    assert download(git_host.template, pointer) == CONTENT
    assert len(git_host.lfs.batches) == 2
    assert len(git_host.lfs.downloads) == 1


# Hosts and secrets.


def test_a_link_to_another_host_is_refused_with_the_setting(
    git_host: GitHost, other: FaultyHost, pointer: Pointer
) -> None:
    git_host.lfs.change = linked(other.script(SIGNED, sized(CONTENT)))

    with pytest.raises(LfsRefused, match=rf"sources\.{SOURCE}\.lfs_hosts") as caught:
        download(git_host.template, pointer, redirect_hosts=(host_of(other),))

    assert str(other.port) in caught.value.message
    assert "s1gn4tur3" not in caught.value.message
    assert other.requests == []


@pytest.mark.parametrize(
    "href",
    (
        "https://user:s1gn4tur3@{own}/a",
        "http://user@{own}/a",
        "http://127.0.0.1.evil.example/a",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://{own}@evil.example/",
    ),
)
def test_a_link_to_an_unsafe_address_is_refused(
    git_host: GitHost, pointer: Pointer, href: str
) -> None:
    own = git_host.url.removeprefix("http://")
    git_host.lfs.change = linked(href.format(own=own))

    with pytest.raises(LfsRefused) as caught:
        download(git_host.template, pointer, allow_private_addresses=True)

    assert "s1gn4tur3" not in caught.value.message


def test_the_token_goes_to_the_source_alone(
    git_host: GitHost, other: FaultyHost, pointer: Pointer
) -> None:
    git_host.lfs.change = linked(other.script(SIGNED, sized(CONTENT)), header={"X-Amz-Date": "1"})

    download(git_host.template, pointer, lfs_hosts=(host_of(other),), authorization=AUTHORIZATION)

    assert git_host.lfs.batches[0].headers["authorization"] == AUTHORIZATION
    (got,) = other.requests
    assert "authorization" not in got.headers
    assert got.headers["x-amz-date"] == "1"


def test_a_download_from_the_source_carries_its_token(git_host: GitHost, pointer: Pointer) -> None:
    assert download(git_host.template, pointer, authorization=AUTHORIZATION) == CONTENT
    assert git_host.lfs.downloads[0].headers["authorization"] == AUTHORIZATION


@pytest.mark.parametrize("spelling", ("Authorization", "authorization", "AUTHORIZATION"))
def test_the_header_of_an_action_replaces_the_token(
    git_host: GitHost, pointer: Pointer, spelling: str
) -> None:
    git_host.lfs.token = "RemoteAuth 1234"  # noqa: S105 - see TOKEN
    href = f"{git_host.url}/{REPO}.git/info/lfs/files/{pointer.sha256}"
    git_host.lfs.change = linked(href, header={spelling: git_host.lfs.token})

    assert download(git_host.template, pointer, authorization=AUTHORIZATION) == CONTENT


def test_the_header_of_an_action_does_not_follow_a_redirect_to_another_host(
    git_host: GitHost, host: FaultyHost, other: FaultyHost, pointer: Pointer
) -> None:
    there = other.script("/there", sized(CONTENT))
    here = host.script("/here", sized(b"", "302 Found", {"Location": "/again"}))
    host.script("/again", sized(b"", "302 Found", {"Location": there}))
    git_host.lfs.change = linked(here, header={"Authorization": "RemoteAuth 1", "X-A": "b"})

    hosts = (host_of(host), host_of(other))
    assert download(git_host.template, pointer, lfs_hosts=hosts) == CONTENT

    assert [each.headers.get("authorization") for each in host.requests] == ["RemoteAuth 1"] * 2
    (redirected,) = other.requests
    assert {"authorization", "x-a"}.isdisjoint(redirected.headers)


# .lfsconfig


@pytest.mark.parametrize("end", ("", ".git", ".git/info/lfs", "/info/lfs/"))
def test_an_address_of_the_repository_itself_is_used(
    git_host: GitHost, pointer: Pointer, end: str
) -> None:
    git_host.lfs.refusal = LfsResponse(status=418)
    url = f"{git_host.url}/{REPO}{end}"

    with pytest.raises(ArchiverError):
        download(git_host.template, pointer, lfs_url=url)

    asked = [each.target for each in git_host.lfs.batches]
    asked += [each.target for each in git_host.requests]
    assert asked == [f"/{REPO}{end.rstrip('/')}/objects/batch"]


@pytest.mark.parametrize(
    "url",
    (
        "https://evil.example/group/project.git/info/lfs",
        "http://127.0.0.1:1/group/project.git/info/lfs",
        "{own}/group/private.git/info/lfs",
        "{own}/group/project.git/../private.git/info/lfs",
        "{own}/group/project.git/%2e%2e/private.git/info/lfs",
        "{own}/group/project.git/./lfs",
        "{own}/group/project-private.git/info/lfs",
        "{own}/group/project/private.git/info/lfs",
        "{own}/group/project.git/private/info/lfs",
        "{own}/group/project.git/info/lfs?a=b",
        "{own}/group/project.git/info/lfs#a",
        "{own}/",
        "{own}",
        "ssh://git@127.0.0.1/group/project.git",
        "file:///etc",
        "http://[",
        "group/project.git",
        "{own}/group/project.git/info/lfs\r\nX: y",
    ),
)
def test_any_other_address_is_ignored(git_host: GitHost, pointer: Pointer, url: str) -> None:
    lfs_url = url.format(own=git_host.url)

    assert download(git_host.template, pointer, lfs_url=lfs_url) == CONTENT
    assert git_host.lfs.batches[0].target == f"/{REPO}.git/info/lfs/objects/batch"
