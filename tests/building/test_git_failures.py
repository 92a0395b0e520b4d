"""Git hosts that fail or lie: each fault has its error, a bounded cost, and no lasting effect."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from archiver.errors import (
    ArchiverError,
    BadPack,
    ForbiddenAddress,
    SourceBusy,
    SourceRefused,
    SourceUnavailable,
    UnknownRepo,
    UnknownRev,
    UnsupportedHost,
)
from archiver.tree_proof import TreeMatch
from tests import git_repositories
from tests.git_repositories import GitRepository, create
from tests.git_world import GitWorld, contents, git_source_config, git_world
from tests.parts.faulty_git_host import (
    DUMB,
    EMPTY,
    FLUSH,
    OLD,
    PAGE,
    Fault,
    FaultyGitHost,
    Question,
    broken_off,
    changed,
    cut,
    failed,
    faulty_git_host,
    flipped,
    in_band,
    pack_of,
    redirected,
    replaced,
    stopped,
    with_pack,
    without_flush,
)
from tests.parts.git_host import REPO, GitHost
from tests.sources.git_packs import pack_of as packed

ADVERTISEMENT, FETCH = Question.ADVERTISEMENT, Question.FETCH

pytestmark = pytest.mark.usefixtures("no_git_left")


class Lab:
    """A worker and a host. ``first`` and ``second`` are commits with different files."""

    def __init__(self, host: FaultyGitHost, world: GitWorld) -> None:
        self.host = host
        self.world = world
        self.first = host.repository.commit(git_repositories.SIMPLE)
        changes = {"src/main.c": b"int main(void) { return 1; }\n" * 50, "new": b"new\n"}
        self.second = host.repository.commit({**git_repositories.SIMPLE, **changes})

    async def fail(self, question: Question, fault: Fault, node: str, *, fetches: int) -> str:
        """Return the code of the error. Fail if it is not Archiver's own, or costs too much."""
        self.host.requests.clear()
        self.host.faults = {question: fault}
        with pytest.raises(ArchiverError) as raised:
            await self.world.make(node)
        self.host.faults = {}
        questions = self.host.questions
        assert questions.count(FETCH) <= fetches
        assert len(questions) <= 2 * fetches + 1
        assert "secret" not in raised.value.message
        assert raised.value.__cause__ is not raised.value
        return raised.value.code

    async def succeed(self, node: str) -> bytes:
        """Return the body of the request for the pack of *node*, whose archive must be right."""
        self.host.requests.clear()
        made = await self.world.make(node)
        assert made.proof
        assert made.proof.match is TreeMatch.EXACT
        tree = self.host.repository.git("ls-tree", "-r", "--name-only", node).splitlines()
        assert sorted(contents(made.tar())) == sorted(f"project-{node}/{name}" for name in tree)
        (request,) = (each for each in self.host.requests if b"command=fetch" in each.body)
        return request.body


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FaultyGitHost]:
    with faulty_git_host(create(tmp_path / "served")) as host:
        yield host


@asynccontextmanager
async def opened(host: FaultyGitHost, folder: Path, authorization: str = "") -> AsyncIterator[Lab]:
    config = git_source_config(host.template, authorization=authorization)
    async with git_world(config, folder) as world:
        yield Lab(host, world)


FIRST_ANSWERS: Mapping[str, tuple[Fault, type[ArchiverError]]] = {
    "version 0": (OLD, UnsupportedHost),
    "dumb": (DUMB, UnsupportedHost),
    "a page": (PAGE, UnsupportedHost),
    "nothing": (EMPTY, SourceUnavailable),
    "half": (cut(60), SourceUnavailable),
    "busy": (in_band(b"temporarily limiting some unauthenticated downloads"), SourceBusy),
    "an error": (in_band(b"secret"), SourceUnavailable),
    "elsewhere": (redirected("http://192.0.2.1/x.git"), ForbiddenAddress),
}

PACK_ANSWERS: Mapping[str, tuple[Fault, type[ArchiverError]]] = {
    "nothing": (EMPTY, SourceUnavailable),
    "a page": (PAGE, SourceUnavailable),
    "unknown": (in_band(b"upload-pack: not our ref 0123456789abcdef"), UnknownRev),
    "a quota": (in_band(b"RESOURCE_EXHAUSTED: secret quota"), SourceBusy),
    "an error": (in_band(b"secret"), SourceUnavailable),
    "stopped": (stopped(b"secret: out of memory"), SourceUnavailable),
    "a text": (replaced(with_pack(b"secret text")), BadPack),
    "a flush": (replaced(FLUSH), BadPack),
    "elsewhere": (redirected("http://192.0.2.1/x.git"), ForbiddenAddress),
}

STATUSES: Mapping[str, tuple[Fault, type[ArchiverError]]] = {
    "401": (failed("401 Unauthorized"), UnknownRepo),
    "403": (failed("403 Forbidden"), UnknownRepo),
    "403 with a pause": (failed("403 Forbidden", {"Retry-After": "9"}), SourceBusy),
    "404": (failed("404 Not Found"), UnknownRepo),
    "410": (failed("410 Gone"), SourceRefused),
    "429": (failed("429 Too Many Requests", {"Retry-After": "9"}), SourceBusy),
    "500": (failed("500 Internal Server Error"), SourceUnavailable),
    "503": (failed("503 Service Unavailable"), SourceBusy),
}


@pytest.mark.parametrize(
    ("question", "faults"),
    (
        (ADVERTISEMENT, FIRST_ANSWERS),
        (ADVERTISEMENT, STATUSES),
        (FETCH, PACK_ANSWERS),
        (FETCH, STATUSES),
    ),
)
def test_each_fault_has_its_error_and_no_lasting_effect(
    host: FaultyGitHost,
    tmp_path: Path,
    question: Question,
    faults: Mapping[str, tuple[Fault, type[ArchiverError]]],
) -> None:
    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            found = {
                name: await lab.fail(question, fault, lab.first, fetches=1)
                for name, (fault, _) in faults.items()
            }
            assert found == {name: error.code for name, (_, error) in faults.items()}
            await lab.succeed(lab.first)

    asyncio.run(scenario())


def test_a_token_that_the_host_rejects_is_not_an_unknown_repository(
    host: FaultyGitHost, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with opened(host, tmp_path, "Bearer secret-token") as lab:
            for question in (ADVERTISEMENT, FETCH):
                code = await lab.fail(question, failed("401 No"), lab.first, fetches=1)
                assert code == SourceRefused.code
            await lab.succeed(lab.first)

    asyncio.run(scenario())


def truncations(body: bytes) -> Sequence[Fault]:
    """Return faults that end *body* at 20 places, properly and in the middle of a chunk.

    They send this body and not each new answer of git, which may frame the same pack differently.
    """
    start, size = body.index(b"PACK"), len(body)
    starts = [0, 2, start - 5, start - 1, start, start + 2, start + 4, start + 11]
    inside = [start + (size - start) * each // 9 for each in range(1, 9)]
    ends = [size - 45, size - 25, size - 24, size - 5]  # in the trailer
    places = [*starts, *inside, *ends]
    assert len(places) == 20
    recorded = [replaced(body[:at]) for at in places]
    return [*recorded, *(broken_off(at, body) for at in places[::4])]


@pytest.mark.thorough
def test_a_pack_that_breaks_off_anywhere_leaves_the_mirror_as_it_was(
    host: FaultyGitHost, tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    def note(body: bytes) -> bytes:
        bodies.append(body)
        return b""

    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            await lab.succeed(lab.first)
            await lab.fail(FETCH, changed(note), lab.second, fetches=1)
            for fault in truncations(bodies[0]):
                code = await lab.fail(FETCH, fault, lab.second, fetches=1)
                assert code in {BadPack.code, SourceUnavailable.code}
            assert f"have {lab.first}".encode() in await lab.succeed(lab.second)

    asyncio.run(scenario())


def test_a_pack_without_the_end_of_its_answer_fails_or_is_kept_whole(
    host: FaultyGitHost, tmp_path: Path
) -> None:
    """Git ends at the end of the pack, so its objects may be there when the fault is noticed."""

    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            assert await lab.fail(FETCH, without_flush, lab.first, fetches=1) == BadPack.code
            made = await lab.world.make(lab.first)
            assert made.proof
            assert made.proof.match is TreeMatch.EXACT

    asyncio.run(scenario())


@pytest.mark.thorough
@pytest.mark.parametrize("is_warm", (False, True))
def test_no_flipped_bit_of_a_pack_reaches_an_archive(
    host: FaultyGitHost, tmp_path: Path, *, is_warm: bool
) -> None:
    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            for percent in range(0, 101, 50) if is_warm else (*range(0, 101, 8), 100):
                if is_warm:
                    await lab.world.make(lab.first)
                code = await lab.fail(FETCH, flipped(percent), lab.second, fetches=1 + is_warm)
                assert code == BadPack.code, percent
            await lab.succeed(lab.second)

    asyncio.run(scenario())


def objects(repository: GitRepository, node: str) -> list[str]:
    """Return the ids of the commit *node*, of its trees, and of its files."""
    listing = repository.git("ls-tree", "-r", "-t", "--object-only", node).split()
    return [node, repository.git("rev-parse", f"{node}^{{tree}}"), *listing]


def pack(repository: GitRepository, ids: Sequence[str]) -> Fault:
    """Send a pack of these objects instead."""
    data = repository.git_bytes(
        "pack-objects", "--stdout", "-q", stdin="".join(f"{each}\n" for each in ids).encode()
    )
    return replaced(with_pack(data))


@pytest.mark.parametrize("is_warm", (False, True))
def test_a_pack_that_lacks_objects_is_a_bad_pack(
    host: FaultyGitHost, tmp_path: Path, *, is_warm: bool
) -> None:
    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            repository = host.repository
            *ids, new_blob = sorted(
                objects(repository, lab.second),
                key=lambda each: each == repository.git("rev-parse", f"{lab.second}:new"),
            )
            new_tree = repository.git("rev-parse", f"{lab.second}:src")
            faults = {
                "a blob": pack(repository, ids),
                "a tree": pack(repository, [*({*ids, new_blob} - {new_tree})]),
                "the root": pack(repository, [*({*ids, new_blob} - {ids[1]})]),
                "the commit": pack(repository, [*ids[1:], new_blob]),
                "everything": pack(repository, []),
                "of another commit": pack(repository, objects(repository, lab.first)),
            }
            for name, fault in faults.items():
                if is_warm:
                    await lab.world.make(lab.first)
                code = await lab.fail(FETCH, fault, lab.second, fetches=1 + is_warm)
                assert code == BadPack.code, name
            await lab.succeed(lab.second)

    asyncio.run(scenario())


def test_a_pack_on_top_of_commits_that_were_not_offered_is_a_bad_pack(
    host: FaultyGitHost, tmp_path: Path
) -> None:
    files = {"file": b"".join(b"line %d\n" % number for number in range(2000))}
    base = host.repository.commit(files)
    node = host.repository.commit({"file": files["file"] + b"last\n"})
    thin = packed(host.repository, node, [base])
    assert len(thin) < len(packed(host.repository, node)) / 2

    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            fault = replaced(with_pack(thin))
            assert await lab.fail(FETCH, fault, node, fetches=1) == BadPack.code
            await lab.succeed(node)

    asyncio.run(scenario())


def test_more_objects_than_the_wanted_ones_do_no_harm(host: FaultyGitHost, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            both = [*objects(host.repository, lab.first), *objects(host.repository, lab.second)]
            host.faults = {FETCH: pack(host.repository, [*dict.fromkeys(both)])}
            await lab.succeed(lab.second)
            made = await lab.world.make(lab.first)
            assert made.proof
            assert host.questions.count(FETCH) == 1

    asyncio.run(scenario())


def test_a_pack_in_other_frames_is_accepted(host: FaultyGitHost, tmp_path: Path) -> None:
    """The faults wrap a pack in frames of their own, which are not the reason for an error."""

    async def scenario() -> None:
        async with opened(host, tmp_path) as lab:
            host.faults = {FETCH: changed(lambda body: with_pack(pack_of(body)))}
            await lab.succeed(lab.second)

    asyncio.run(scenario())


def test_a_renamed_repository_is_archived_under_its_old_name(
    git_host: GitHost, tmp_path: Path
) -> None:
    node = git_host.create("new/place").commit(git_repositories.SIMPLE)
    git_host.renamed = {REPO: "new/place"}

    async def scenario() -> None:
        async with git_world(git_source_config(git_host.template), tmp_path) as world:
            made = await world.make(node)
            assert made.proof
            assert {name.partition("/")[0] for name in made.tar().getnames()} == {f"project-{node}"}

    asyncio.run(scenario())
