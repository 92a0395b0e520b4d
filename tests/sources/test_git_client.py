"""The client of a git host: which hosts it accepts, their errors, redirects and secrets."""

import asyncio
import threading
import traceback
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.errors import (
    ArchiverError,
    ForbiddenAddress,
    SourceBusy,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    UnknownRepo,
    UnsupportedHost,
)
from archiver.model import Archive, Node
from archiver.sources.fetch import open_fetch
from archiver.sources.git.client import GitClient, GitUrls
from archiver.sources.git.refs import GitRefs
from tests.git_repositories import SIMPLE, create
from tests.parts.faulty_git_host import (
    DUMB,
    EMPTY,
    FLUSH,
    ID,
    OLD,
    PAGE,
    Answer,
    Fault,
    FaultyGitHost,
    Question,
    broken_off,
    changed,
    failed,
    faulty_git_host,
    in_band,
    line,
    redirected,
    replaced,
    served,
)
from tests.parts.faulty_host import FaultyHost, Step, Until, sized
from tests.parts.git_host import REPO, GitHost
from tests.sources.git_hosts import (
    SOURCE,
    fetch_pack,
    git_client,
    git_config,
    known,
    resolve,
)

TOKEN = "s3cr3t-token"  # noqa: S105 - of a host of the tests
CREDENTIALS = f"x-access-token:{TOKEN}"
AUTHORIZATION = f"Basic {b64encode(CREDENTIALS.encode()).decode()}"


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyGitHost]:
    repository = create(tmp_path / "faulty")
    repository.commit(SIMPLE)
    with faulty_git_host(repository) as host:
        yield host


def tip(host: FaultyGitHost) -> str:
    return host.repository.git("rev-parse", "main")


def ask(host: FaultyGitHost, question: Question, *, authorization: str = "") -> None:
    """Send the requests for a lookup or a pack, of which *question* is one."""
    if question is Question.FETCH:
        fetch_pack(host.template, tip(host), authorization=authorization)
    else:
        resolve(host.template, "main", authorization=authorization)


def advertised(*lines: bytes) -> Fault:
    return replaced(b"".join(map(line, lines)) + FLUSH)


V2 = (b"version 2\n", b"ls-refs=unborn\n", b"fetch=shallow filter\n")


@pytest.mark.parametrize(
    "fault",
    (
        served,
        changed(lambda body: line(b"# service=git-upload-pack\n") + FLUSH + body),
        changed(lambda body: line(b"# service=git-upload-pack\n") + body),
        advertised(b"version 2", b"ls-refs", b"fetch=shallow", b"object-format=sha1"),
        advertised(*V2, b"server-option\n", b"object-info\n", b"other=a=b\n"),
    ),
)
def test_an_advertisement_of_version_2_is_accepted(faulty: FaultyGitHost, fault: Fault) -> None:
    faulty.faults[Question.ADVERTISEMENT] = fault

    assert resolve(faulty.template, "main") == tip(faulty)


def test_an_object_format_that_was_not_offered_is_not_sent(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.ADVERTISEMENT] = advertised(*V2)
    resolve(faulty.template, "main")
    faulty.faults.clear()
    resolve(faulty.template, "main")

    without, offered = (request.body for request in faulty.requests if request.method == "POST")
    assert b"object-format" not in without
    assert b"object-format=sha1\n" in offered


@pytest.mark.parametrize(
    ("fault", "reason"),
    (
        (OLD, "an old version of git's protocol"),
        (advertised(b"version 1\n", f"{ID} HEAD\0thin-pack\n".encode()), "an old version"),
        (replaced(line(f"{ID} HEAD\0thin-pack\n".encode()) * 5000), "an old version"),
        (DUMB, "dumb HTTP protocol only"),
        (replaced(b"", "text/plain"), "dumb HTTP protocol only"),
        (PAGE, "sent a page"),
        (replaced(b"{}", "application/json"), "does not speak git's smart HTTP protocol"),
        (replaced(b"hello", "text/plain"), "does not speak git's smart HTTP protocol"),
        (replaced(line(b"hello") + FLUSH), "does not speak git's smart HTTP protocol"),
        (replaced(FLUSH), "an old version"),
        (
            replaced(b"hello", "application/octet-stream"),
            "does not speak git's smart HTTP protocol",
        ),
        (advertised(b"version 2\n", b"fetch=shallow\n"), "without ls-refs"),
        (advertised(b"version 2\n", b"ls-refs\n", b"fetch=filter\n"), "without .*shallow"),
        (advertised(b"version 2\n", b"ls-refs\n", b"fetch\n"), "without .*shallow"),
        (advertised(*V2, b"object-format=sha3\n"), "object format"),
    ),
)
def test_other_hosts_are_refused_with_the_reason(
    faulty: FaultyGitHost, fault: Fault, reason: str
) -> None:
    faulty.faults[Question.ADVERTISEMENT] = fault

    for ask in (resolve, known, fetch_pack):
        with pytest.raises(UnsupportedHost, match=reason) as refused:
            ask(faulty.template, "main" if ask is resolve else ID)
        assert not refused.value.retryable
    assert set(faulty.questions) == {Question.ADVERTISEMENT}


def test_a_real_host_without_version_2_is_refused(git_host: GitHost) -> None:
    git_host.create().commit(SIMPLE)
    git_host.versions = False

    with pytest.raises(UnsupportedHost, match="version 2 is required"):
        resolve(git_host.template, "main")


@pytest.mark.parametrize(
    "fault",
    (
        EMPTY,
        replaced(b"zzzz"),
        replaced(line(b"version 2\n") + line(b"ls-refs\n")),
        replaced(line(b"version 2\n") + line(b"a" * 1000) * 100 + FLUSH),
        replaced(line(b"version 2\n")[:-3]),
        broken_off(20),
        in_band(b"secret trouble"),
    ),
)
def test_a_broken_advertisement_is_retried(faulty: FaultyGitHost, fault: Fault) -> None:
    faulty.faults[Question.ADVERTISEMENT] = fault

    with pytest.raises(SourceUnavailable) as raised:
        resolve(faulty.template, "main")

    assert "secret" not in raised.value.message


RETRY = {"Retry-After": "7"}


@pytest.mark.parametrize("question", Question)
@pytest.mark.parametrize(
    ("fault", "error"),
    (
        (failed("401 Unauthorized", {"WWW-Authenticate": 'Basic realm="x"'}), UnknownRepo),
        (failed("403 Forbidden"), UnknownRepo),
        (failed("404 Not Found"), UnknownRepo),
        (failed("403 Forbidden", RETRY), SourceBusy),
        (failed("429 Too Many Requests", RETRY), SourceBusy),
        (failed("503 Service Unavailable", RETRY), SourceBusy),
        (failed("500 Internal Server Error"), SourceUnavailable),
        (failed("400 Bad Request"), SourceRefused),
        (failed("304 Not Modified"), SourceUnavailable),
    ),
)
def test_a_status_has_its_error(
    faulty: FaultyGitHost, question: Question, fault: Fault, error: type[ArchiverError]
) -> None:
    faulty.faults[question] = fault

    with pytest.raises(error) as raised:
        ask(faulty, question)

    assert "secret" not in raised.value.message
    if isinstance(raised.value, SourceBusy):
        assert raised.value.retry_after == timedelta(seconds=7)


def test_a_repository_is_probed_once_until_it_fails(faulty: FaultyGitHost) -> None:
    async def play() -> None:
        async with git_client(faulty.template) as client:
            refs = GitRefs(client)
            await asyncio.gather(*(refs.resolve(REPO, "main") for _ in range(5)))
            await refs.resolve("other/repo", "main")
            faulty.faults[Question.LS_REFS] = failed("404 Not Found")
            with pytest.raises(UnknownRepo):
                await refs.resolve(REPO, "main")
            faulty.faults.clear()
            await refs.resolve(REPO, "main")

    asyncio.run(play())
    assert faulty.questions.count(Question.ADVERTISEMENT) == 3


def test_a_repository_may_change_its_object_format(git_host: GitHost) -> None:
    git_host.create("now").commit(SIMPLE)
    node = git_host.create("later", object_format="sha256").commit(SIMPLE)

    async def play() -> Node:
        async with git_client(git_host.template) as client:
            refs = GitRefs(client)
            await refs.resolve("now", "main")
            (git_host.folder / "now.git").rename(git_host.folder / "old.git")
            (git_host.folder / "later.git").rename(git_host.folder / "now.git")
            with pytest.raises(SourceUnavailable, match="object format"):
                await refs.resolve("now", "main")
            return await refs.resolve("now", "main")

    assert asyncio.run(play()) == node


def test_queries_are_limited_to_a_few_at_a_time(faulty: FaultyGitHost) -> None:
    answered = threading.Event()

    def later(answer: Answer) -> tuple[Step, ...]:
        return (Until(answered), *served(answer))

    faulty.faults[Question.LS_REFS] = later

    async def play() -> list[Node]:
        async with git_client(faulty.template, lookup_concurrency=2) as client:
            lookups = [asyncio.create_task(GitRefs(client).resolve(REPO, "main")) for _ in range(6)]
            while faulty.most_at_once < 2:
                await asyncio.sleep(0.01)
            assert faulty.questions.count(Question.LS_REFS) == 2
            answered.set()
            return await asyncio.gather(*lookups)

    assert asyncio.run(play()) == [tip(faulty)] * 6
    assert faulty.most_at_once == 2


def test_a_query_times_out_also_while_it_waits_for_a_slot(faulty: FaultyGitHost) -> None:
    never = threading.Event()
    faulty.faults[Question.LS_REFS] = lambda _: (Until(never),)

    async def play() -> list[Node | BaseException]:
        config = git_config(faulty.template, lookup_concurrency=1)
        async with open_fetch(config) as fetch:
            client = GitClient(config, fetch, query_deadline=timedelta(seconds=0.5))
            lookups = (GitRefs(client).resolve(REPO, "main") for _ in range(2))
            return await asyncio.gather(*lookups, return_exceptions=True)

    assert [type(outcome) for outcome in asyncio.run(play())] == [SourceTimeout, SourceTimeout]


# Redirects and secrets.


def test_a_renamed_repository_is_found_under_its_old_name(git_host: GitHost) -> None:
    node = git_host.create("new/home").commit(SIMPLE)
    git_host.renamed["old/home"] = "new/home"

    assert resolve(git_host.template, "main", "old/home") == node
    assert fetch_pack(git_host.template, node, repo="old/home").startswith(b"PACK")
    posts = [request.target for request in git_host.requests if request.method == "POST"]
    assert set(posts) == {"/new/home.git/git-upload-pack"}


def test_a_repository_may_be_renamed_at_any_time(git_host: GitHost) -> None:
    node = git_host.create("old").commit(SIMPLE)

    async def play() -> Node:
        async with git_client(git_host.template) as client:
            refs = GitRefs(client)
            await refs.resolve("old", "main")
            (git_host.folder / "old.git").rename(git_host.folder / "new.git")
            git_host.renamed["old"] = "new"
            return await refs.resolve("old", "main")

    assert asyncio.run(play()) == node
    moved = [request.method for request in git_host.requests if request.status == 301]
    assert moved == ["POST"]


def test_a_host_that_redirects_only_the_first_request_is_used_at_its_target(
    git_host: GitHost, faulty: FaultyGitHost
) -> None:
    """GitLab does so if the address does not end in ``.git``."""
    node = git_host.create().commit(SIMPLE)
    there = f"{git_host.url}/{REPO}.git/info/refs?service=git-upload-pack"
    faulty.faults = {
        Question.ADVERTISEMENT: redirected(there),
        Question.LS_REFS: failed("404 Not Found"),
    }
    hosts = (f"127.0.0.1:{git_host.port}",)

    assert resolve(faulty.template, "main", redirect_hosts=hosts) == node
    assert faulty.questions == [Question.ADVERTISEMENT]


def test_a_private_repository_is_served_with_the_token_only(git_host: GitHost) -> None:
    node = git_host.create().commit(SIMPLE)
    git_host.credentials = CREDENTIALS

    with pytest.raises(UnknownRepo, match="or it is private"):
        resolve(git_host.template, "main")
    with pytest.raises(SourceRefused, match="does not accept the token"):
        resolve(git_host.template, "main", authorization=AUTHORIZATION.swapcase())
    assert resolve(git_host.template, "main", authorization=AUTHORIZATION) == node
    assert fetch_pack(git_host.template, node, authorization=AUTHORIZATION).startswith(b"PACK")


def test_the_token_follows_a_redirect_on_the_same_host_only(
    git_host: GitHost, faulty: FaultyGitHost
) -> None:
    node = git_host.create("moved").commit(SIMPLE)
    git_host.renamed["old"] = "moved"
    git_host.credentials = CREDENTIALS
    assert resolve(git_host.template, "main", "old", authorization=AUTHORIZATION) == node

    there = git_host.url + "/moved.git"
    faulty.faults[Question.ADVERTISEMENT] = redirected(f"{there}/info/refs?service=git-upload-pack")
    before = len(git_host.requests)
    with pytest.raises(UnknownRepo):
        resolve(
            faulty.template,
            "main",
            authorization=AUTHORIZATION,
            redirect_hosts=(f"127.0.0.1:{git_host.port}",),
        )
    (received,) = git_host.requests[before:]
    assert "authorization" not in received.headers
    assert [request.headers["authorization"] for request in faulty.requests] == [AUTHORIZATION]


@pytest.mark.parametrize("question", Question)
def test_a_redirect_outside_is_not_followed(
    faulty: FaultyGitHost, host: FaultyHost, question: Question
) -> None:
    there = host.script("/there", sized(b""))
    faulty.faults[question] = redirected(there)

    with pytest.raises(ForbiddenAddress):
        ask(faulty, question, authorization=AUTHORIZATION)

    assert host.requests == []


def test_the_token_is_in_no_log_and_no_error(faulty: FaultyGitHost) -> None:
    text = f"no access for {CREDENTIALS}: {AUTHORIZATION}, {TOKEN}".encode()
    seen = [repr(git_config(faulty.template, authorization=AUTHORIZATION))]

    with capture_logs() as logs:
        for question, fault in product(Question, (in_band(text), failed("500 Oops"), PAGE)):
            faulty.faults = {question: fault}
            with pytest.raises(ArchiverError) as raised:
                ask(faulty, question, authorization=AUTHORIZATION)
            seen += traceback.format_exception(raised.value)

    assert len(logs) == 3
    assert {request.headers["authorization"] for request in faulty.requests} == {AUTHORIZATION}
    for secret in (TOKEN, AUTHORIZATION, AUTHORIZATION.split()[1]):
        assert secret not in repr(logs)
        assert [text for text in seen if secret in text] == []


def test_addresses_are_made_of_the_templates() -> None:
    urls = GitUrls(
        "https://forge.example.org/{repo}.git",
        archive_template="https://forge.example.org/{repo}/-/{node}/{basename}.{suffix}?path={subdir}",
    )
    archive = Archive(
        source=SOURCE, repo="a b/c{node}", node=Node(ID), subdir="x/y&z", suffix="tar.gz"
    )

    assert urls.repo("a b/c?") == "https://forge.example.org/a%20b/c%3F.git"
    assert urls.advertisement("a") == (
        "https://forge.example.org/a.git/info/refs?service=git-upload-pack"
    )
    assert urls.archive(archive) == (
        f"https://forge.example.org/a%20b/c%7Bnode%7D/-/{ID}/c%7Bnode%7D.tar.gz?path=x/y%26z"
    )
    assert GitUrls("https://forge.example.org/{repo}").archive(archive) is None
