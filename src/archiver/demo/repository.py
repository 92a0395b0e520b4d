"""A Mercurial repository with generated files, and the hgweb that serves it."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from archiver.embedded.local_ports import LOOPBACK
from archiver.embedded.program import CannotServe, Program, find_program, http_probe

REPO = "projects/ash"
SUBDIR = "testing/mozharness"

MERCURIAL_ENV = {"HGRCPATH": "", "HGPLAIN": "1"}
"""Makes hg ignore the user's configuration."""

UNCOMPRESSED = ("--config", "format.revlog-compression=none")
"""Compressing random bytes takes long and gains nothing."""

_FILES_AND_SIZE = {
    "browser/base": (60, 60_000),
    "js/src/jit": (60, 60_000),
    "testing/mozharness/configs": (80, 4_000),
    "testing/mozharness/mozharness/base": (40, 24_000),
    "testing/mozharness/mozharness/mozilla": (60, 32_000),
    "testing/mozharness/scripts": (20, 2_400_000),
    "toolkit/content": (40, 120_000),
}
"""About 360 files and 63 MB, of which 51 MB are in `SUBDIR`: large enough to watch the progress."""

COMMIT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRepository:
    """A repository on disk, and the port at which hgweb will serve it."""

    folder: Path
    port: int

    @property
    def path(self) -> Path:
        return self.folder / "ash"

    @property
    def url_template(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/{{repo}}/archive/{{rev}}.{{suffix}}/{{subdir}}"

    def archive_url(self, node: str, suffix: str) -> str:
        """Return hgweb's URL of the archive, with twelve digits of the node as Archiver uses."""
        template = self.url_template
        return template.format(repo=REPO, rev=node[:12], suffix=suffix, subdir=SUBDIR)

    def count_files(self, subdir: str) -> int:
        return sum(
            count
            for folder, (count, _size) in _FILES_AND_SIZE.items()
            if folder.startswith(f"{subdir}/")
        )

    def create(self) -> str:
        """Write and commit the files. Return the node, which is the same for every demo."""
        for name, content in _generate_files():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self._hg("init")
        self._hg("commit", "--addremove", "--message", "Begin", "--user", "demo", "--date", "0 0")
        return self._hg("log", "--rev", ".", "--template", "{node}")

    def hgweb_server(self) -> Program:
        config = self.folder / "hgweb.conf"
        settings = f"[paths]\n{REPO} = {self.path}\n\n[web]\nallow-archive = gz zip bz2\n"
        return Program(
            name="hgweb",
            command=(
                *(*mercurial(), "serve", "--web-conf", str(config)),
                *("--address", LOOPBACK, "--port", str(self.port)),
                *("--accesslog", os.devnull),
            ),
            env=MERCURIAL_ENV,
            prepare=partial(config.write_text, settings),
            ready=http_probe(LOOPBACK, self.port, f"/{REPO}?cmd=capabilities", expect=b" 200 "),
            log=self.folder / "hgweb.log",
        )

    def _hg(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - no part of the command comes from outside
            (*mercurial(), *UNCOMPRESSED, *arguments),
            cwd=self.path,
            env={**os.environ, **MERCURIAL_ENV},
            capture_output=True,
            timeout=COMMIT_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise CannotServe(f"hg {arguments[0]} exited with {done.returncode}")
        return done.stdout.decode()


def mercurial() -> tuple[str, ...]:
    """Return the command for hg: run by this Python if it was installed as a wheel."""
    try:
        found = find_program("hg")
    except CannotServe:
        raise CannotServe("hg is not installed: pip install 'archiver[demo]'") from None
    from_wheel = found.parent == Path(sys.executable).parent
    return (sys.executable, str(found)) if from_wheel else (str(found),)


def _generate_files() -> Iterator[tuple[str, bytes]]:
    """Yield names and contents. The contents are random hex digits, which compress slowly."""
    content = random.Random(2015)  # noqa: S311 - must be the same every time
    yield "README", b"A tree to try Archiver with.\n"
    for folder, (count, size_bytes) in _FILES_AND_SIZE.items():
        for number in range(count):
            yield (
                f"{folder}/part_{number:02}.txt",
                content.randbytes(size_bytes // 2).hex().encode(),
            )
