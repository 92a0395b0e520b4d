"""Packs of a real git host, and of one that misbehaves in the middle of them."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from archiver.errors import (
    BadPack,
    SourceBusy,
    SourceError,
    SourceTimeout,
    SourceTooSlow,
    SourceUnavailable,
    UnknownRev,
)
from archiver.model import Node
from archiver.sources.git.pack import BESIDE_MAX_BYTES, PackDecoder, open_pack
from tests.git_repositories import MODES, SIMPLE, GitRepository, create
from tests.parts.faulty_git_host import (
    DELIMITER,
    EMPTY,
    FLUSH,
    ID,
    PAGE,
    Fault,
    FaultyGitHost,
    Question,
    broken_off,
    changed,
    cut,
    endless,
    faulty_git_host,
    flipped,
    in_band,
    line,
    lines_of,
    pack_of,
    replaced,
    stopped,
    with_pack,
    with_sections,
    without_flush,
)
from tests.parts.git_host import REPO, GitHost
from tests.parts.process import wait_until
from tests.sources.git_hosts import SOURCE, fetch_pack, git_client, index_pack


@pytest.fixture
def store(tmp_path: Path) -> GitRepository:
    return create(tmp_path / "store")


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyGitHost]:
    repository = create(tmp_path / "faulty")
    repository.commit(SIMPLE)
    with faulty_git_host(repository) as host:
        yield host


def tip(host: FaultyGitHost) -> str:
    return host.repository.git("rev-parse", "main")


def fetch_with(host: FaultyGitHost, fault: Fault) -> bytes:
    host.faults[Question.FETCH] = fault
    return fetch_pack(host.template, tip(host))


@pytest.mark.parametrize("object_format", ("sha1", "sha256"))
def test_a_pack_has_the_commit_and_its_files_but_no_history(
    git_host: GitHost, tmp_path: Path, object_format: str
) -> None:
    repository = git_host.create(object_format=object_format)
    parent = repository.commit({"old": b"old"})
    node = repository.commit({**SIMPLE, **MODES})
    store = create(tmp_path / "store", object_format=object_format)

    index_pack(store, fetch_pack(git_host.template, node))

    assert store.git("ls-tree", "-r", node) == repository.git("ls-tree", "-r", node)
    assert store.git("cat-file", "-p", node) == repository.git("cat-file", "-p", node)
    objects = store.git("cat-file", "--batch-all-objects", "--batch-check=%(objectname)")
    assert node in objects
    assert parent not in objects


def test_a_pack_has_only_the_changes_since_the_nodes_at_hand(
    git_host: GitHost, store: GitRepository
) -> None:
    repository = git_host.create()
    files = {f"{number}.txt": b"%d\n" % number * 300 for number in range(200)}
    nodes = [
        repository.commit({**files, "7.txt": b"round %d\n" % number + files["7.txt"]})
        for number in range(4)
    ]

    sizes = []
    for at, node in enumerate(nodes):
        pack = fetch_pack(git_host.template, node, haves=nodes[:at])
        index_pack(store, pack)
        sizes.append(len(pack))

    assert max(sizes[1:]) < sizes[0] / 10
    for node in nodes:
        assert store.git("ls-tree", "-r", node) == repository.git("ls-tree", "-r", node)


def test_nodes_that_the_host_does_not_have_are_no_obstacle(
    git_host: GitHost, store: GitRepository
) -> None:
    node = git_host.create().commit(SIMPLE)

    index_pack(store, fetch_pack(git_host.template, node, haves=[ID, "f" * 40]))

    assert store.git("ls-tree", "-r", node).count("\n") == len(SIMPLE) - 1


def test_the_request_asks_for_nothing_with_which_a_host_could_name_other_hosts(
    git_host: GitHost,
) -> None:
    node = git_host.create().commit(SIMPLE)
    fetch_pack(git_host.template, node, haves=[ID])

    (request,) = git_host.fetches
    assert [text[4:] for text in lines_of(request.body)] == [
        b"command=fetch\n",
        b"object-format=sha1\n",
        b"",
        b"thin-pack\n",
        b"ofs-delta\n",
        b"no-progress\n",
        b"shallow %s\n" % ID.encode(),
        b"have %s\n" % ID.encode(),
        b"deepen 1\n",
        b"want %s\n" % node.encode(),
        b"done\n",
        b"",
    ]
    assert request.headers["git-protocol"] == "version=2"
    assert request.headers["content-type"] == "application/x-git-upload-pack-request"


def test_a_commit_that_no_ref_shows_is_sent(git_host: GitHost, store: GitRepository) -> None:
    node = git_host.create().unreachable_commit(SIMPLE)

    index_pack(store, fetch_pack(git_host.template, node))

    assert store.git("cat-file", "-t", node) == "commit"


@pytest.mark.parametrize("node", (ID, "a" * 64))
def test_an_unknown_commit_is_an_unknown_rev(git_host: GitHost, node: str) -> None:
    git_host.create().commit(SIMPLE)

    with pytest.raises(UnknownRev):
        fetch_pack(git_host.template, node)


def test_sections_that_were_not_asked_for_are_ignored(
    faulty: FaultyGitHost, store: GitRepository
) -> None:
    index_pack(store, fetch_with(faulty, with_sections))

    assert store.git("cat-file", "-t", tip(faulty)) == "commit"


def test_progress_beside_the_pack_is_ignored_up_to_a_limit(
    faulty: FaultyGitHost, store: GitRepository
) -> None:
    def with_progress(size_bytes: int) -> Fault:
        progress = line(b"\2" + b"." * 999) * (size_bytes // 1000)
        return changed(lambda body: with_pack(pack_of(body), end=progress + FLUSH))

    index_pack(store, fetch_with(faulty, with_progress(BESIDE_MAX_BYTES // 2)))
    with pytest.raises(BadPack):
        fetch_with(faulty, with_progress(BESIDE_MAX_BYTES * 2))


@pytest.mark.parametrize(
    "text",
    (
        b"upload-pack: not our ref " + ID.encode(),
        b"want " + ID.encode() + b" not valid",
        b"want " + ID.encode() + b" not valid\n",
    ),
)
def test_a_host_that_does_not_have_the_commit_says_so_in_band(
    faulty: FaultyGitHost, text: bytes
) -> None:
    with capture_logs() as logs, pytest.raises(UnknownRev):
        fetch_with(faulty, in_band(text))

    assert logs == []


@pytest.mark.parametrize(
    ("text", "error"),
    (
        (b"We are temporarily limiting some unauthenticated downloads", SourceBusy),
        (b"429 RESOURCE_EXHAUSTED: Quota exceeded", SourceBusy),
        (b"Rate limit exceeded", SourceBusy),
        (b"secret trouble", SourceUnavailable),
        (b"", SourceUnavailable),
    ),
)
@pytest.mark.parametrize("band", (in_band, stopped))
def test_other_errors_of_the_host_are_retried_and_logged(
    faulty: FaultyGitHost, text: bytes, error: type[SourceError], band: Callable[[bytes], Fault]
) -> None:
    with capture_logs() as logs, pytest.raises(SourceError) as raised:
        fetch_with(faulty, band(text))

    assert type(raised.value) is error
    assert raised.value.retryable
    assert "secret" not in raised.value.message
    assert [(entry["event"], entry["text"]) for entry in logs] == [("host.reported", text.decode())]


def test_a_text_of_the_host_is_logged_short_and_without_control_characters(
    faulty: FaultyGitHost,
) -> None:
    with capture_logs() as logs, pytest.raises(SourceUnavailable):
        fetch_with(faulty, in_band(b"\x1b[31mred\r\n\0 \xff\xe2\x80\xae" + b"x" * 5000))

    (entry,) = logs
    assert entry["source"] == SOURCE
    assert entry["text"].startswith("[31mred \N{REPLACEMENT CHARACTER}")
    assert entry["text"].isprintable()
    assert len(entry["text"]) <= 200


@pytest.mark.parametrize(
    "fault",
    (
        *(cut(at) for at in (1, 4, 5, 12, 30, 60, 61, 65, 100, -200, -5, -4, -1)),
        *(broken_off(at) for at in (1, 30, 60, 100, 250)),
        without_flush,
        changed(lambda body: body + b"more"),
        changed(lambda body: body + FLUSH),
        changed(lambda body: with_pack(pack_of(body), end=b"0001" + FLUSH)),
        changed(lambda body: with_pack(pack_of(body), end=line(b"\4four") + FLUSH)),
        changed(lambda body: with_pack(pack_of(body), end=line(b"") + FLUSH)),
        replaced(FLUSH),
        replaced(line(b"acknowledgments\n") + line(b"NAK\n") + FLUSH),
        replaced(line(b"packfile\n") + FLUSH),
        replaced(line(b"packfile\n") + line(b"\1PAC") + FLUSH),
        replaced(line(b"packfile\n") + line(b"\1PUCK" + b"a" * 100) + FLUSH),
        replaced(line(b"packfile\n") + line(b"\1fatal: secret") + FLUSH),
        replaced(line(b"PACK")),
        replaced(b"fatal: secret"),
        replaced(b"fff9" + b"a" * 70_000),
        replaced(b"0003"),
    ),
)
def test_a_stream_that_is_no_whole_pack_is_a_bad_pack(faulty: FaultyGitHost, fault: Fault) -> None:
    with pytest.raises(BadPack) as raised:
        fetch_with(faulty, fault)

    assert raised.value.retryable
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("percent", (0, 3, 10, 50, 90, 100))
def test_a_flipped_bit_does_not_pass_as_a_pack(
    faulty: FaultyGitHost, store: GitRepository, percent: int
) -> None:
    """The client only checks the frame; git finds every other fault."""
    try:
        pack = fetch_with(faulty, flipped(percent))
    except BadPack:
        assert percent == 0
    else:
        with pytest.raises(AssertionError, match="index-pack"):
            index_pack(store, pack)


@pytest.mark.parametrize("fault", (EMPTY, PAGE, replaced(b"PACK", "text/plain")))
def test_an_answer_outside_of_the_protocol_is_retried(faulty: FaultyGitHost, fault: Fault) -> None:
    with pytest.raises(SourceUnavailable):
        fetch_with(faulty, fault)


BEGUN = line(b"packfile\n") + line(b"\1PACK")


def test_a_pack_that_never_ends_is_given_up_at_the_deadline(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.FETCH] = endless(line(b"\1more"), every_s=0.02, start=BEGUN)

    with pytest.raises(SourceTimeout):
        fetch_pack(faulty.template, tip(faulty), deadline=timedelta(seconds=0.5))


def test_a_pack_that_arrives_too_slowly_is_given_up(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.FETCH] = endless(line(b"\1more"), every_s=0.02, start=BEGUN)

    with pytest.raises(SourceTooSlow):
        fetch_pack(
            faulty.template,
            tip(faulty),
            min_rate_bytes_s=1 << 20,
            min_rate_window=timedelta(seconds=0.2),
        )


def test_a_silent_host_is_given_up(faulty: FaultyGitHost) -> None:
    faulty.faults[Question.FETCH] = endless(b"", every_s=300, start=BEGUN)

    with pytest.raises(SourceTimeout):
        fetch_pack(faulty.template, tip(faulty), read_timeout=timedelta(seconds=0.3))


@pytest.mark.thorough
def test_a_caller_that_stops_reading_ends_the_request(git_host: GitHost) -> None:
    noise = Random(2015)  # noqa: S311 - same every time
    files = {f"{number}": noise.randbytes(1 << 20) for number in range(24)}
    node = git_host.create().commit(files)

    async def play() -> None:
        async with (
            git_client(git_host.template) as client,
            open_pack(client, REPO, Node(node)) as pack,
        ):
            await anext(pack.chunks())

    asyncio.run(play())
    wait_until(lambda: git_host.backends == 0, what="the end of the backend")
    (request,) = git_host.fetches
    assert request.sent_bytes < 24 << 20


@given(cuts=st.lists(st.integers(min_value=0), max_size=30), pack=st.binary(max_size=3000))
def test_pieces_do_not_change_the_pack(cuts: list[int], pack: bytes) -> None:
    body = (
        line(b"shallow-info\n")
        + line(b"shallow %s" % ID.encode())
        + DELIMITER
        + with_pack(b"PACK" + pack)
    )
    decoder = PackDecoder()
    at = sorted({0, len(body), *(cut % len(body) for cut in cuts)})

    received = b"".join(decoder.feed(body[start:end]) for start, end in pairwise(at))
    decoder.finish()

    assert received == b"PACK" + pack
