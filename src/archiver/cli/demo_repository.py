"""A real Mercurial repository and the hgweb that serves it, for ``archiver demo``."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from archiver.embedded import binaries
from archiver.embedded.child import Part
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import LOOPBACK
from archiver.embedded.probe import http

REPO = "projects/ash"
SUBDIR = "testing/mozharness"

MERCURIAL_ENV = {"HGRCPATH": "", "HGPLAIN": "1"}
"""Nobody's configuration but this module's."""

UNCOMPRESSED = ("--config", "format.revlog-compression=none")
"""To compress random bytes takes long, and is in vain."""

_FILES_AND_SIZE = {
    "browser/base": (60, 60_000),
    "js/src/jit": (60, 60_000),
    "testing/mozharness/configs": (80, 4_000),
    "testing/mozharness/mozharness/base": (40, 24_000),
    "testing/mozharness/mozharness/mozilla": (60, 32_000),
    "testing/mozharness/scripts": (20, 2_400_000),
    "toolkit/content": (40, 120_000),
}
"""About 360 files and 63 MB, of which 51 are in `SUBDIR`: enough to watch, soon done."""

COMMIT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository on disk, and the address at which hgweb will serve it."""

    folder: Path
    port: int

    @property
    def path(self) -> Path:
        return self.folder / "ash"

    @property
    def url_template(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"

    def archive_url(self, node: str, suffix: str) -> str:
        """Return hgweb's own address of the archive; Archiver asks for twelve digits, too."""
        template = self.url_template
        return template.format(repo=REPO, rev=node[:12], suffix=suffix, subdir=SUBDIR)

    def files_of(self, subdir: str) -> int:
        """Return how many files *subdir* has."""
        return sum(
            count
            for folder, (count, _size) in _FILES_AND_SIZE.items()
            if folder.startswith(f"{subdir}/")
        )

    def create(self) -> str:
        """Write the files, commit them, and return the node. The same at every call: so is it."""
        for name, content in _files():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._hg("init")
        self._hg("commit", "--addremove", "--message", "Begin", "--user", "demo", "--date", "0 0")
        return self._hg("log", "--rev", ".", "--template", "{node}")

    def hgweb(self) -> Part:
        """Return the server."""
        config = self.folder / "hgweb.conf"

        def prepare() -> None:
            config.write_text(
                f"[paths]\n{REPO} = {self.path}\n\n[web]\nallow-archive = gz zip bz2\n"
            )

        return Part(
            name="hgweb",
            command=(
                *(*mercurial(), "serve", "--web-conf", str(config)),
                *("--address", LOOPBACK, "--port", str(self.port)),
                *("--accesslog", os.devnull),
            ),
            env=MERCURIAL_ENV,
            prepare=prepare,
            ready=http(LOOPBACK, self.port, f"/{REPO}?cmd=capabilities", expect=b" 200 "),
            log=self.folder / "hgweb.log",
        )

    def _hg(self, *arguments: str) -> str:
        ran = subprocess.run(  # noqa: S603 - a program and words of our own
            (*mercurial(), *UNCOMPRESSED, *arguments),
            cwd=self.path,
            env={**os.environ, **MERCURIAL_ENV},
            capture_output=True,
            timeout=COMMIT_TIMEOUT_S,
            check=False,
        )
        if ran.returncode:
            raise CannotServe(f"hg {arguments[0]} ended with {ran.returncode}")
        return ran.stdout.decode()


def mercurial() -> tuple[str, ...]:
    """Return how to call hg: with this Python, if it came as a wheel, lest it finds another one."""
    try:
        found = binaries.find("hg")
    except CannotServe:
        raise CannotServe("hg is not installed: pip install 'archiver[demo]'") from None
    own = found.parent == Path(sys.executable).parent
    return (sys.executable, str(found)) if own else (str(found),)


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents: hex digits, of which even hgweb's compressor has its work."""
    content = random.Random(2015)  # noqa: S311 - has to be the same every time
    yield "README", b"A tree to try Archiver with.\n"
    for folder, (count, size_bytes) in _FILES_AND_SIZE.items():
        for number in range(count):
            yield (
                f"{folder}/part_{number:02}.txt",
                content.randbytes(size_bytes // 2).hex().encode(),
            )
