"""Submodules of hostile or broken repositories: what is refused, and that nobody else is asked."""

import asyncio
import os
import resource
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.access.patterns import RepoFilter
from archiver.errors import (
    ArchiverError,
    ArchiveTooLarge,
    BadGitmodules,
    MirrorFailed,
    SourceBusy,
    SourceUnavailable,
    SubmoduleMissing,
    SubmoduleRefused,
)
from archiver.sources.config import GitConfig
from tests.git_lab import expected, litter, mirrors_of, open_world
from tests.git_repositories import Entry, Files, submodule
from tests.git_world import contents, git_source_config, git_world
from tests.parts.git_host import GitHost, serving_git
from tests.parts.thorough import thorough
from tests.superprojects import Superproject, gitmodules, with_submodules

NODE = "1" * 40
PLAIN = GitConfig()


@pytest.fixture
def superproject(git_host: GitHost) -> Superproject:
    return Superproject(git_host)


def failure_of(
    superproject: Superproject, folder: Path, node: str, git: GitConfig = PLAIN
) -> ArchiverError:
    """Return the error of the complete archive. Fails the test if there is none."""

    async def scenario() -> ArchiverError:
        config = git_source_config(superproject.host.template, git=git)
        async with git_world(config, folder) as world:
            with pytest.raises(ArchiverError) as raised:
                await world.make(node, submodules=True)
            return raised.value

    return asyncio.run(scenario())


@contextmanager
def canary() -> Iterator[tuple[int, list[object]]]:
    """Yield a port, and what has connected to it when the block has ended."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1], visitors
        listener.settimeout(0)
        try:
            visitors.append(listener.accept())
        except BlockingIOError:
            return


@pytest.mark.parametrize(
    "url",
    (
        "http://127.0.0.1:{port}/group/one.git",
        "http://localhost:{port}/group/one.git",
        "ssh://git@127.0.0.2:{port}/group/absent.git",
        "file://{folder}/group/one.git",
        "ext::sh -c touch% {folder}/pwned",
        "--upload-pack=touch {folder}/pwned",
        "ssh://-oProxyCommand=touch {folder}/pwned/x",
        *thorough(
            "git://localhost:{port}/group/one.git",
            "https://user:password@127.0.0.1:{port}/group/one",
            "{folder}/group/one.git",
            "-u./{folder}",
            "../../../../../../{folder}",
            "../../group",
            "..",
            "https://elsewhere.example/group/one.git",
            "[::1]:group/one",
            "\t",
            "x" * 5000,
        ),
    ),
)
def test_a_url_of_no_source_is_refused_and_nobody_is_asked(
    superproject: Superproject, tmp_path: Path, url: str
) -> None:
    host = superproject.host
    with canary() as (port, visitors):
        url = url.format(port=port, folder=host.folder)
        node = superproject.commit(urls={"lib": (url, superproject.one_node)})
        host.requests.clear()
        failure = failure_of(superproject, tmp_path, node)
    assert isinstance(failure, (SubmoduleRefused, BadGitmodules)), failure
    assert not failure.retryable
    assert "lib" in failure.message
    assert "password" not in failure.message
    assert failure.message.isprintable()
    assert not visitors
    assert not (host.folder / "pwned").exists()
    assert {request.target.partition(".git")[0] for request in host.requests} <= {
        "/group/project",
        "/group",
    }


def test_the_failure_names_the_submodule_and_the_settings(
    superproject: Superproject, tmp_path: Path
) -> None:
    node = superproject.commit(urls={"libs/x": ("https://elsewhere.example/x", NODE)})
    failure = failure_of(superproject, tmp_path, node)
    assert failure.message == (
        "the submodule libs/x has the URL https://elsewhere.example/x, and no source that you may "
        "read serves it, or has this repository: url_template, submodule_urls and repos of a "
        "source say which URLs it serves"
    )
    assert failure.origins == ()


def test_a_repo_that_the_settings_do_not_serve_looks_like_one_that_does_not_exist(
    superproject: Superproject, tmp_path: Path
) -> None:
    """The host is not even asked for the first."""
    host = superproject.host
    host.create("secret/a").commit({"a": b"a\n"})
    denied = GitConfig(repos=RepoFilter(denied=("secret/*",)))
    messages = []
    for number, name in enumerate(("secret/a", "absent/a")):
        node = superproject.commit(urls={"lib": (f"../../{name}", NODE)})
        host.requests.clear()
        failure = failure_of(superproject, tmp_path / str(number), node, denied)
        assert isinstance(failure, SubmoduleRefused)
        messages.append(failure.message.replace(name, "X"))
        assert not [request for request in host.requests if "secret" in request.target]
    assert messages[0] == messages[1]


def test_a_commit_that_its_repository_has_lost_is_missing(
    superproject: Superproject, tmp_path: Path
) -> None:
    node = superproject.commit(urls={"libs/one": ("../one.git", NODE)})
    failure = failure_of(superproject, tmp_path, node)
    assert isinstance(failure, SubmoduleMissing)
    assert "libs/one" in failure.message
    assert NODE in failure.message
    assert [origin.repo for origin in failure.origins] == ["group/one"]


def test_a_failure_deep_inside_has_the_origins_of_all_submodules_around_it(
    superproject: Superproject, tmp_path: Path
) -> None:
    one = superproject.one.commit(with_submodules({}, {"deep/two": ("../two", NODE)}))
    node = superproject.commit(urls={"libs/one": ("../one.git", one)})
    missing = failure_of(superproject, tmp_path / "missing", node)
    assert isinstance(missing, SubmoduleMissing)
    assert [origin.path for origin in missing.origins] == ["libs/one", "libs/one/deep/two"]
    one = superproject.one.commit(with_submodules({}, {"x": ("https://elsewhere.example/", NODE)}))
    node = superproject.commit(urls={"libs/one": ("../one.git", one)})
    refused = failure_of(superproject, tmp_path / "refused", node)
    assert isinstance(refused, SubmoduleRefused)
    assert "libs/one/x" in refused.message
    assert [origin.path for origin in refused.origins] == ["libs/one"]


GITMODULES: dict[str, tuple[Files, str]] = {
    "absent": ({"lib": submodule(NODE)}, "no URL for lib"),
    "another path": (
        {".gitmodules": gitmodules({"other": "../one"}), "lib": submodule(NODE)},
        "no URL for lib",
    ),
    "malformed": (
        {".gitmodules": b"[submodule\n", "lib": submodule(NODE)},
        "git cannot parse",
    ),
    "binary": ({".gitmodules": bytes(range(256)), "lib": submodule(NODE)}, "git cannot parse"),
    "too long": (
        {".gitmodules": b"#" * (1 << 20) + b"\n", "lib": submodule(NODE)},
        "more than 1,048,576 bytes",
    ),
    "a name with ..": (
        {
            ".gitmodules": b'[submodule "../x"]\n\tpath = lib\n\turl = ../one\n',
            "lib": submodule(NODE),
        },
        "no URL for lib",
    ),
    "an include": (
        {
            ".gitmodules": b"[include]\n\tpath = /etc/passwd\n",
            "lib": submodule(NODE),
        },
        "no URL for lib",
    ),
    "a folder": ({".gitmodules/x": b"", "lib": submodule(NODE)}, "no URL for lib"),
    "an unusual path": (
        {".gitmodules": gitmodules({"a\u202eb": "../one"}), "a\u202eb": submodule(NODE)},
        "unusable path",
    ),
    "a path in Latin-1": (
        {".gitmodules": b"", "caf\udce9": submodule(NODE)},
        "unusable path",
    ),
    "a hyphen": ({".gitmodules": gitmodules({"-": "../one"}), "-": submodule(NODE)}, "unusable"),
}


QUICK = ("absent", "malformed", "an include", "an unusual path")


@pytest.mark.parametrize("case", (*QUICK, *thorough(*sorted(GITMODULES.keys() - set(QUICK)))))
def test_a_gitmodules_without_a_usable_url_is_a_final_failure(
    superproject: Superproject, tmp_path: Path, case: str
) -> None:
    files, message = GITMODULES[case]
    node = superproject.project.commit(files)
    failure = failure_of(superproject, tmp_path, node)
    assert isinstance(failure, BadGitmodules), failure
    assert message in failure.message
    assert not failure.retryable
    assert len(mirrors_of(tmp_path)) == 1  # the mirror is not to blame


def test_the_last_of_two_urls_counts_as_in_git(superproject: Superproject, tmp_path: Path) -> None:
    modules = gitmodules({"lib": "../one.git"}) + gitmodules({"lib": "../two.git"})
    files: Files = {".gitmodules": modules, "lib": submodule(superproject.two_node)}
    node = superproject.project.commit(files)

    async def scenario() -> None:
        async with open_world(superproject.host, tmp_path) as world:
            made = await world.make(node, submodules=True)
            assert made.proof
            assert [part.origin.repo for part in made.proof.parts] == ["group/two"]

    asyncio.run(scenario())


def test_too_many_submodules_are_refused_before_one_is_fetched(
    superproject: Superproject, tmp_path: Path
) -> None:
    urls = {f"lib/{number}": (f"../{number}", NODE) for number in range(10_000)}
    node = superproject.commit(urls=urls)
    superproject.host.requests.clear()
    failure = failure_of(superproject, tmp_path, node)
    assert isinstance(failure, ArchiveTooLarge)
    assert "sources.git.max_submodules" in failure.message
    assert len(superproject.host.fetches) == 1


def test_submodules_of_all_repositories_count_together(
    superproject: Superproject, tmp_path: Path
) -> None:
    """Each has two of the next: ten levels would make a thousand."""
    node = superproject.two_node
    for _ in range(9):
        urls = {"a": ("../two", node), "b": ("../two", node)}
        node = superproject.two.commit(with_submodules({}, urls))
    top = superproject.commit(urls={"x": ("../two", node)})
    failure = failure_of(superproject, tmp_path, top, GitConfig(max_submodules=20))
    assert isinstance(failure, ArchiveTooLarge)
    assert "max_submodules" in failure.message


def test_a_chain_of_submodules_ends_at_the_limit(
    superproject: Superproject, tmp_path: Path
) -> None:
    """A repository may be in itself, at an earlier commit."""
    project, node = superproject.project, superproject.node
    for _ in range(3):
        node = project.commit(with_submodules({"a": b"a\n"}, {"self": ("../project", node)}))

    async def make(depth: int) -> None:
        git = GitConfig(max_submodule_depth=depth)
        config = git_source_config(superproject.host.template, git=git)
        async with git_world(config, tmp_path) as world:
            made = await world.make(node, submodules=True)
            assert made.proof
            assert made.proof.parts[-1].origin.path == "self/self/self/libs/one/deep/two"

    asyncio.run(make(5))
    with pytest.raises(ArchiveTooLarge, match="max_submodule_depth"):
        asyncio.run(make(4))


def test_a_symbolic_link_cannot_stand_for_a_folder_around_a_submodule(
    superproject: Superproject, tmp_path: Path
) -> None:
    files: Files = {
        ".gitmodules": gitmodules({"link/lib": "../one"}),
        "link": Entry(mode="120000", content=b"/tmp"),
        "real/lib": submodule(superproject.one_node),
    }
    node = superproject.project.commit(files)
    assert isinstance(failure_of(superproject, tmp_path, node), BadGitmodules)


def test_a_submodule_may_be_on_another_configured_host(
    superproject: Superproject, tmp_path: Path
) -> None:
    with serving_git(tmp_path / "other") as other:
        lib = other.create("team/lib")
        lib_node = lib.commit({"lib.txt": b"lib\n"})
        urls = {
            "web": (f"{other.url}/team/lib", lib_node),
            "alias": ("git@ssh.example:team/lib.git", lib_node),
        }
        node = superproject.commit(urls=urls)
        taken: list[str] = []

        @asynccontextmanager
        async def take_seat(source: str) -> AsyncIterator[None]:
            taken.append(source)
            yield

        async def scenario() -> None:
            alias = GitConfig(submodule_urls=("git@ssh.example:{repo}",))
            other_source = git_source_config(other.template, name="other", git=alias)
            own = git_source_config(superproject.host.template)
            async with git_world(own, tmp_path, other_source, take_seat=take_seat) as world:
                made = await world.make(node, submodules=True)
                assert made.proof
                assert [part.origin.source for part in made.proof.parts] == ["other", "other"]
                names = set(contents(made.tar()))
                assert {name.partition("/")[2] for name in names} > {"web/lib.txt", "alias/lib.txt"}

        asyncio.run(scenario())
        assert len(other.fetches) == 1
        assert taken
        assert set(taken) == {"other"}


def test_seats_that_others_hold_for_too_long_end_the_attempt_and_not_the_task(
    superproject: Superproject, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def never(source: str) -> AsyncIterator[None]:  # noqa: ARG001 - as TakeSeat
        await asyncio.Event().wait()
        yield

    async def scenario() -> None:
        config = replace(
            git_source_config(superproject.host.template), deadline=timedelta(seconds=0.5)
        )
        async with git_world(config, tmp_path, take_seat=never) as world:
            with pytest.raises(SourceBusy) as raised:
                await world.make(superproject.node, submodules=True)
            assert raised.value.retryable
        assert not litter(tmp_path)

    asyncio.run(scenario())


def test_a_source_that_shows_only_commits_of_refs_does_so_in_submodules(
    superproject: Superproject, tmp_path: Path
) -> None:
    hidden = superproject.two.unreachable_commit({"hidden": b"hidden\n"})
    shown = superproject.two.commit({"shown": b"shown\n"})
    reachable = GitConfig(reachable=True)
    node = superproject.commit(urls={"lib": ("../two", hidden)})
    failure = failure_of(superproject, tmp_path / "hidden", node, reachable)
    assert isinstance(failure, SubmoduleMissing)

    async def scenario() -> None:
        config = git_source_config(superproject.host.template, git=reachable)
        node = superproject.commit(urls={"lib": ("../two", shown)})
        async with git_world(config, tmp_path / "shown") as world:
            assert (await world.make(node, submodules=True)).proof

    asyncio.run(scenario())


def test_an_outage_of_the_host_of_a_submodule_is_retryable_and_has_its_origin(
    superproject: Superproject, tmp_path: Path
) -> None:
    with serving_git(tmp_path / "other") as other:
        template = other.template
    node = superproject.commit(urls={"lib": (template.replace("{repo}", "x"), NODE)})

    async def scenario() -> None:
        own = git_source_config(superproject.host.template)
        async with git_world(own, tmp_path, git_source_config(template, name="other")) as world:
            with pytest.raises(SourceUnavailable) as raised:
                await world.make(node, submodules=True)
            assert raised.value.retryable
            assert [origin.source for origin in raised.value.origins] == ["other"]
            assert raised.value.message.startswith("the submodule lib: ")
            assert raised.value.log_fields["submodule_source"] == "other"

    asyncio.run(scenario())


@pytest.mark.parametrize("victim", (1, *thorough(0, 2)))
def test_a_mirror_that_is_deleted_while_it_is_in_use_costs_a_retry_at_most(
    superproject: Superproject, tmp_path: Path, victim: int
) -> None:
    host, node = superproject.host, superproject.node

    async def scenario() -> None:
        async with open_world(host, tmp_path) as world:
            first = await world.make(node, submodules=True)
            shutil.rmtree(mirrors_of(tmp_path)[victim])
            try:
                again = await world.make(node, submodules=True)
            except MirrorFailed:
                again = await world.make(node, submodules=True)
            assert again.data == first.data

    asyncio.run(scenario())
    assert not litter(tmp_path)


def test_nothing_is_left_over(superproject: Superproject, tmp_path: Path) -> None:
    assert expected(superproject.host, tmp_path, superproject.node)
    failure_of(superproject, tmp_path, superproject.commit(urls={"lib": ("../one", NODE)}))
    assert not litter(tmp_path)


def test_submodules_that_need_more_open_files_than_a_worker_may_have_are_too_many(
    superproject: Superproject, tmp_path: Path
) -> None:
    urls = {f"lib/{number}": ("../two", superproject.two_node) for number in range(30)}
    node = superproject.commit(urls=urls)
    with few_files(50, limit=100):
        failure = failure_of(superproject, tmp_path, node)
    assert isinstance(failure, ArchiveTooLarge)
    assert "ulimit -n" in failure.message


@contextmanager
def few_files(more: int, *, limit: int) -> Iterator[None]:
    """Allow this process *more* open files, at a *limit* that is higher."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < limit - more - 1:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)
