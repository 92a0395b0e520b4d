"""What a build tells clients that may not read a submodule: the same, whatever is in it.

In each world, ``corp`` is a submodule whose URL means a repository of a private source. It has the
commit, lacks it, does not exist, or no source serves the URL. An outsider cannot tell these apart.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, PartOrigin
from archiver.model import Limits
from archiver.sources.config import GitConfig
from archiver.tasks import Failure, Phase
from tests.git_repositories import Files
from tests.git_world import git_source_config, git_world
from tests.parts.git_host import GitHost, serving_git
from tests.parts.thorough import thorough
from tests.superprojects import Superproject, Urls

LFS = b"*.bin filter=lfs\n"
MISSING = "1" * 40
ALL = Limits()


def outsider(source: str, repo: str) -> bool:  # noqa: ARG001 - as MayRead
    return source != "vault"


class Worlds:
    """A public superproject, and a private host with one repository, which is large."""

    def __init__(self, host: GitHost, vault: GitHost, folder: Path) -> None:
        self.superproject = Superproject(host)
        self.vault = vault
        self.folder = folder
        secret = vault.create("corp/secret")
        self.secret = secret.commit({"secret.bin": bytes(range(256)) * 4000})
        nested = vault.create("corp/nested")
        self.nested = nested.commit({"nested": b"nested\n"})

    def urls(self, world: str) -> tuple[str, str]:
        """Return URL and node of the submodule ``corp``. The URLs have the same length."""
        existing, absent = "corp/secret", "corp/absent"
        served = self.vault.url
        unserved = served.replace("127.0.0.1", "127.0.0.9")
        return {
            "whole": (f"{served}/{existing}.git", self.secret),
            "lacking": (f"{served}/{existing}.git", MISSING),
            "absent": (f"{served}/{absent}.git", self.secret),
            "unserved": (f"{unserved}/{existing}.git", self.secret),
        }[world]

    def seen(
        self, world: str, files: Files, others: Urls, *, limits: Limits = ALL, lfs: bool = False
    ) -> tuple[str, str, list[tuple[Phase, int]]]:
        """Return code, message and progress of a build, as the outsider sees them."""
        url, node = self.urls(world)
        commit = self.superproject.commit(files, {"corp": (url, node), **others})
        phases: list[tuple[Phase, int]] = []

        async def scenario() -> Failure:
            public = git_source_config(self.superproject.host.template, limits=limits)
            private = git_source_config(
                self.vault.template, name="vault", git=GitConfig(open=False)
            )
            async with git_world(public, self.folder / world, private) as made:
                try:
                    archive = await made.make(commit, submodules=True, lfs=lfs, phases=phases)
                except ArchiverError as exc:
                    return Failure.of(exc).as_seen_by(outsider)
                assert archive.proof
                hidden = archive.proof.first_hidden(outsider)
                assert isinstance(hidden, PartOrigin)
                return Failure.refusal(hidden)

        failure = asyncio.run(scenario())
        return failure.code, failure.message.replace(url, "URL"), sizeless(phases)


def sizeless(phases: list[tuple[Phase, int]]) -> list[tuple[Phase, int]]:
    """Return the progress without the bytes of the superproject, whose commits differ."""
    return [(phase, min(size_bytes, 1)) for phase, size_bytes in phases]


CASES: Mapping[str, tuple[Files, Mapping[str, str], Limits, bool]] = {
    "nothing else": ({"a": b"a\n"}, {}, ALL, False),
    "another submodule lacks its commit": ({"a": b"a\n"}, {"zz": MISSING}, ALL, False),
    "an earlier submodule lacks its commit": ({"a": b"a\n"}, {"aa": MISSING}, ALL, False),
    "an LFS file is missing": (
        {
            ".gitattributes": LFS,
            "a.bin": (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n" % (b"1" * 64)
            ),
        },
        {},
        ALL,
        True,
    ),
    "the limit is between the two": (
        {"a": b"a" * 1000},
        {},
        Limits(unpacked_bytes=100_000),
        False,
    ),
}


QUICK = ("nothing else", "an LFS file is missing")


@pytest.mark.parametrize("case", (*QUICK, *thorough(*sorted(CASES.keys() - set(QUICK)))))
def test_an_outsider_cannot_tell_what_a_private_host_has(
    git_host: GitHost, tmp_path: Path, case: str
) -> None:
    files, nodes, limits, lfs = CASES[case]
    with serving_git(tmp_path / "vault") as vault:
        worlds = Worlds(git_host, vault, tmp_path)
        others = {path: ("../one.git", node) for path, node in nodes.items()}
        seen = {
            world: worlds.seen(world, files, others, limits=limits, lfs=lfs)
            for world in ("whole", "lacking", "absent", "unserved")
        }
    assert len({(code, message) for code, message, _ in seen.values()}) == 1, seen
    assert seen["whole"][0] == "submodule_refused"
    last = {world: phases[-1:] for world, (_, _, phases) in seen.items()}
    assert len({str(phases) for phases in last.values()}) == 1, seen


def test_an_unserved_submodule_after_a_private_one_is_not_the_one_that_is_named(
    git_host: GitHost, tmp_path: Path
) -> None:
    with serving_git(tmp_path / "vault") as vault:
        worlds = Worlds(git_host, vault, tmp_path)
        later = {"zz": ("https://elsewhere.example/x", MISSING)}
        messages = {
            worlds.seen(world, {"a": b"a\n"}, later)[1]
            for world in ("whole", "lacking", "absent", "unserved")
        }
    assert len(messages) == 1
    assert "the submodule corp has" in messages.pop()


def test_a_build_with_a_private_part_shows_no_progress_of_it(
    git_host: GitHost, tmp_path: Path
) -> None:
    with serving_git(tmp_path / "vault") as vault:
        worlds = Worlds(git_host, vault, tmp_path)
        _, _, phases = worlds.seen("whole", {"a": b"a\n"}, {})
    assert {phase for phase, _ in phases} == {Phase.FETCHING}
