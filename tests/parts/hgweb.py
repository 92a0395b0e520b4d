"""A real hgweb that tests share, and the repositories that it serves."""

import os
import random
import secrets
import shutil
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    """Runs Mercurial commands in one process, since each start takes most of a second.

    Protocol: https://wiki.mercurial-scm.org/CommandServer
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin
        assert process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout
        self._read_message()  # the greeting

    def run(self, *arguments: str, folder: Path) -> str:
        """Run a command in *folder*, and return its output."""
        words = "\0".join(("--cwd", str(folder), *arguments)).encode()
        self._stdin.write(b"runcommand\n" + struct.pack(">I", len(words)) + words)
        self._stdin.flush()
        printed = {b"o": b"", b"e": b""}
        while True:
            channel, data = self._read_message()
            if channel == b"r":
                assert data == bytes(4), (arguments, printed[b"e"])
                return printed[b"o"].decode()
            printed[channel] += data

    def _read_message(self) -> tuple[bytes, bytes]:
        channel, size = struct.unpack(">cI", self._stdout.read(5))
        return channel, self._stdout.read(size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on disk. ``name`` is its path below hgweb's URL."""

    name: str
    path: Path
    mercurial: Mercurial = field(repr=False)

    def hg(self, *arguments: str) -> str:
        """Run a Mercurial command in the working directory, and return its output."""
        return self.mercurial.run(*arguments, folder=self.path)

    def write(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def commit(self, files: Mapping[str, bytes] | None = None, message: str = "Change") -> str:
        """Write *files*, commit all changes, and return the new node."""
        self.write(files or {})
        self.hg("commit", "--addremove", "--message", message, "--date", DATE)
        return self.node(".")

    def node(self, rev: str) -> str:
        return self.hg("log", "--rev", rev, "--template", "{node}")

    @property
    def tip(self) -> str:
        return self.node("tip")

    def branch(self, name: str) -> None:
        """Start a branch at the next commit."""
        self.hg("branch", name)

    def tag(self, name: str, rev: str) -> None:
        """Tag *rev*. The tag is a commit on top of the working directory's parent."""
        self.hg("tag", "--rev", rev, "--date", DATE, name)

    def bookmark(self, name: str, rev: str) -> None:
        self.hg("bookmark", "--force", "--rev", rev, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hgweb:
    """A running server. It serves every repository in ``folder``.

    ``template`` is the ``url_template`` for a source's settings.
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
        """Return the bytes of hgweb's own archive. A node is shortened to 12 digits."""
        rev = rev[:12] if len(rev) == 40 else rev
        url = f"{self.url}/{repo}/archive/{rev}.{suffix}/{subdir}".rstrip("/")
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - ours
            body: bytes = response.read()
            return body

    def create(self, name: str) -> Repository:
        """Create an empty repository, which is served immediately."""
        path = self.folder / name
        repository = Repository(name=name, path=path, mercurial=self.mercurial)
        repository.path.mkdir(parents=True)
        repository.hg("init")
        return repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Ash:
    """The nodes of ``projects/ash``, which tests do not change.

    - ``node`` is the head of the branch ``default``. The tag ``REL_1.0`` and several bookmarks
      point to it. It contains ``files``, a symlink and an executable. ``spellings`` are its names.
    - ``old`` is its parent.
    - ``feature``, the head of the branch ``feature-x``, and ``tip`` are its descendants.
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
    """Create a folder for repositories in *folder*, and hgweb's configuration that serves them."""
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
        yield Mercurial(process)  # exits when its input is closed


@pytest.fixture(scope="session")
def hgweb(tmp_path_factory: pytest.TempPathFactory, mercurial: Mercurial) -> Iterator[Hgweb]:
    with serving(tmp_path_factory.mktemp("hgweb"), mercurial) as server:
        yield server


@contextmanager
def serving(folder: Path, mercurial: Mercurial, setting: str = "") -> Iterator[Hgweb]:
    """Yield a server, whose section ``web`` has another *setting*."""
    repositories, config = configured(folder)
    with config.open("a") as file:
        file.write(f"{setting}\n")
    port = free_port()
    command = [hg_binary(), "serve", "--web-conf", str(config), "--address", "127.0.0.1"]
    command += ["--port", str(port), "--accesslog", os.devnull]
    env = {**HG_ENV, "XDG_CACHE_HOME": str(folder)}  # where extensions keep large files
    with running(command, log=folder / "log", ready=lambda: accepts(port), env=env):
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
    repository.branch("release-notes")  # for the commit of the tag
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
    """A repository whose archive has 2 MB in every format. Tests must not change it."""
    repository = hgweb.create("projects/large")
    noise = random.Random(7)  # noqa: S311 - same every time
    repository.commit({f"noise/{number:02}.dat": noise.randbytes(100_000) for number in range(20)})
    return repository


@pytest.fixture
def fresh(hgweb: Hgweb) -> Repository:
    """A repository without a changeset, for one test."""
    return hgweb.create(f"fresh/{secrets.token_hex(4)}")
