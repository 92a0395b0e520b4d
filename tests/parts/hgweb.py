"""A real hgweb, shared by the tests, and repositories that it serves."""

import os
import random
import secrets
import shutil
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.parts.process import accepts, free_port, running

HG_ENV = {"HGRCPATH": "", "HGPLAIN": "1", "HGUSER": "tester", "HGENCODING": "utf-8"}
DATE = "1500000000 0"

CONFIG = """\
[paths]
/ = {repositories}/**
[web]
allow-archive = gz zip bz2
refreshinterval = 0
"""

ASH = "projects/ash"
MOZHARNESS = "testing/mozharness"
FILES = {
    "README": b"Ash, a repository to try things in.\n",
    f"{MOZHARNESS}/configs/a/b/deep.cfg": b"deep = True\n",
    f"{MOZHARNESS}/mozharness/base.py": b"import os\n" * 2000,
    f"{MOZHARNESS}/scripts/run.py": b"#!/usr/bin/env python\n",
    "testing/caf\N{LATIN SMALL LETTER E WITH ACUTE} au lait/menu.txt": b"espresso\n",
    "toolkit/noise.dat": random.Random(2015).randbytes(200_000),  # noqa: S311 - same every time
    f"toolkit/{'long/' * 40}name.txt": b"longer than a tar header has room for\n",
}

ODD_NAMES = ("@", "rel/2.0", "caf\N{LATIN SMALL LETTER E WITH ACUTE}/#1 ?&x=%41")


def hg_binary() -> str:
    beside = Path(sys.executable).parent / "hg"
    return str(beside if beside.exists() else shutil.which("hg") or "hg")


class Mercurial:
    """A process that runs commands of Mercurial: it takes most of a second to start one for each.

    Protocol: https://wiki.mercurial-scm.org/CommandServer
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout
        self._read()  # it says hello

    def run(self, *arguments: str, folder: Path) -> str:
        """Return what a command prints that runs in *folder*."""
        words = "\0".join(("--cwd", str(folder), *arguments)).encode()
        self._stdin.write(b"runcommand\n" + struct.pack(">I", len(words)) + words)
        self._stdin.flush()
        printed = {b"o": b"", b"e": b""}
        while True:
            channel, data = self._read()
            if channel == b"r":
                assert data == bytes(4), (arguments, printed[b"e"])
                return printed[b"o"].decode()
            printed[channel] += data

    def _read(self) -> tuple[bytes, bytes]:
        channel, size = struct.unpack(">cI", self._stdout.read(5))
        return channel, self._stdout.read(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on disk. ``name`` is where hgweb serves it."""

    name: str
    path: Path
    mercurial: Mercurial = field(repr=False)

    def hg(self, *arguments: str) -> str:
        """Run a command of Mercurial in the working directory; return what it prints."""
        return self.mercurial.run(*arguments, folder=self.path)

    def write(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def commit(self, files: Mapping[str, bytes] | None = None, message: str = "Change") -> str:
        """Write *files*, commit all that changed, and return the new node."""
        self.write(files or {})
        self.hg("commit", "--addremove", "--message", message, "--date", DATE)
        return self.node(".")

    def node(self, rev: str) -> str:
        return self.hg("log", "--rev", rev, "--template", "{node}")

    @property
    def tip(self) -> str:
        return self.node("tip")

    def branch(self, name: str) -> None:
        """Have the next commit begin a branch."""
        self.hg("branch", name)

    def tag(self, name: str, rev: str) -> None:
        """Name *rev* for good; commits to where the working directory is."""
        self.hg("tag", "--rev", rev, "--date", DATE, name)

    def bookmark(self, name: str, rev: str) -> None:
        self.hg("bookmark", "--force", "--rev", rev, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hgweb:
    """A server that a test may ask for. Whatever repository comes to lie in ``folder``, it serves.

    ``template`` is its archive URL, as a source's settings want it.
    """

    port: int
    folder: Path
    mercurial: Mercurial = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def template(self) -> str:
        return self.template_for(self.port)

    def template_for(self, port: int) -> str:
        """Return the template for a proxy on a loopback *port*."""
        return f"http://127.0.0.1:{port}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"

    def archive(self, repo: str, rev: str, suffix: str, subdir: str = "") -> bytes:
        """Return what hgweb itself sends for the 12 digits of a node, or for a name."""
        rev = rev[:12] if len(rev) == 40 else rev
        url = f"{self.url}/{repo}/archive/{rev}.{suffix}/{subdir}".rstrip("/")
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - ours
            body: bytes = response.read()
            return body

    def create(self, name: str) -> Repository:
        """Return a new and empty repository, which is served at once."""
        path = self.folder / name
        repository = Repository(name=name, path=path, mercurial=self.mercurial)
        repository.path.mkdir(parents=True)
        repository.hg("init")
        return repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Ash:
    """The nodes of ``projects/ash``, of which nothing changes.

    ``node`` is the head of the branch ``default``, the tag ``REL_1.0`` and several bookmarks,
    and bears ``files``, a symlink and an executable; ``old`` comes before it, and ``feature``,
    the head of the branch ``feature-x``, and ``tip`` after it. ``spellings`` are names of ``node``.
    """

    repo: str
    node: str
    old: str
    feature: str
    tip: str
    spellings: tuple[str, ...]
    files: Mapping[str, bytes] = field(repr=False)
    mozharness: tuple[str, ...]


def configured(folder: Path) -> tuple[Path, Path]:
    """Return a new folder for repositories in *folder*, and the configuration that serves them."""
    repositories, config = folder / "repositories", folder / "hgweb.conf"
    repositories.mkdir()
    config.write_text(CONFIG.format(repositories=repositories))
    return repositories, config


@pytest.fixture(scope="session")
def mercurial() -> Iterator[Mercurial]:
    command = [hg_binary(), "serve", "--cmdserver", "pipe"]
    with subprocess.Popen(
        command, env={**os.environ, **HG_ENV}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield Mercurial(process)  # ends when its input does


@pytest.fixture(scope="session")
def hgweb(tmp_path_factory: pytest.TempPathFactory, mercurial: Mercurial) -> Iterator[Hgweb]:
    folder = tmp_path_factory.mktemp("hgweb")
    repositories, config = configured(folder)
    port = free_port()
    command = [hg_binary(), "serve", "--web-conf", str(config), "--address", "127.0.0.1"]
    command += ["--port", str(port), "--accesslog", os.devnull]
    with running(command, log=folder / "log", ready=lambda: accepts(port), env=HG_ENV):
        yield Hgweb(port=port, folder=repositories, mercurial=mercurial)


@pytest.fixture(scope="session")
def ash(hgweb: Hgweb) -> Ash:
    repository = hgweb.create(ASH)
    old = repository.commit({**FILES, f"{MOZHARNESS}/scripts/run.py": b"#!/bin/sh\n"})
    repository.write(FILES)
    (repository.path / f"{MOZHARNESS}/scripts/run.py").chmod(0o755)
    (repository.path / f"{MOZHARNESS}/latest").symlink_to("mozharness/base.py")
    node = repository.commit()
    repository.branch("feature-x")
    feature = repository.commit({f"{MOZHARNESS}/mozharness/feature.py": b"x = 1\n"})
    repository.branch("release-notes")  # so that neither of the others gets the tag's changeset
    repository.tag("REL_1.0", node)
    for name in ODD_NAMES:
        repository.bookmark(name, node)
    repository.bookmark("stable", node)
    inside = [name for name in FILES if name.startswith(MOZHARNESS)]
    return Ash(
        repo=ASH,
        node=node,
        old=old,
        feature=feature,
        tip=repository.tip,
        spellings=(node, node[:12], node[:20], "default", "REL_1.0", "stable", *ODD_NAMES),
        files=FILES,
        mozharness=(*inside, f"{MOZHARNESS}/latest"),
    )


@pytest.fixture(scope="session")
def empty(hgweb: Hgweb) -> Repository:
    """A repository without a changeset."""
    return hgweb.create("projects/empty")


@pytest.fixture(scope="session")
def large(hgweb: Hgweb) -> Repository:
    """A repository whose archive has 2 MB, however it is compressed. Not to be changed."""
    repository = hgweb.create("projects/large")
    noise = random.Random(7)  # noqa: S311 - has to be the same every time
    repository.commit({f"noise/{number:02}.dat": noise.randbytes(100_000) for number in range(20)})
    return repository


@pytest.fixture
def fresh(hgweb: Hgweb) -> Repository:
    """A repository of the test's own, without a changeset."""
    return hgweb.create(f"fresh/{secrets.token_hex(4)}")
