"""Snippets of docs/how-to, rewritten for a repository of the tests."""

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.hgweb import Hgweb

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = (
    "download-archives",
    "download-from-a-program",
    "install-with-pip-or-uv",
    "use-with-bazel",
    "use-with-nix",
)
SECTIONS = {
    heading: text
    for name in PAGES
    for heading, text in re.findall(
        r"^## ([^\n]*)\n(.*?)(?=^## |\Z)",
        (HOW_TO / f"{name}.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    if "```" in text
}
"""The sections with code: heading to text."""

SERVER = "https://archiver.example.org"
HOST = "https://hg.mozilla.org"
REPO = "projects/ash"
NODE = "42bf5f2b8a1d6c3e9f70814d2a6b5c9e3f1d7a80"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

BRIEF, LONG = 3.0, 11.0
"""Seconds to fetch a project: a few holds, and more than the nine holds of one request."""

TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A repository. Archiver serves its archives with the host's bytes."""

    server: str
    hgweb: Hgweb = field(repr=False)
    repo: str
    node: str

    @property
    def file_name(self) -> str:
        return f"{self.node}.tar.gz"

    def sha256(self, suffix: str = "tar.gz") -> str:
        return hashlib.sha256(self.hgweb.archive(self.repo, self.node, suffix)).hexdigest()

    def snippet(self, section: str, language: str = "sh", *, suffix: str = "tar.gz") -> str:
        """Return the code block in *language* of *section*, rewritten for this project."""
        text = snippet(section, language)
        for documented, actual in self._names(suffix):
            text = text.replace(documented, actual)
        return text

    def _names(self, suffix: str) -> list[tuple[str, str]]:
        return [
            (SERVER, self.server),
            (SERVER.removeprefix("https://"), self.server.removeprefix("http://")),
            (HOST, self.hgweb.url),
            (HOST.removeprefix("https://"), self.hgweb.url.removeprefix("http://")),
            (REPO, self.repo),
            (f"ash-{NODE[:12]}", f"{self.repo.rpartition('/')[2]}-{self.node[:12]}"),
            (NODE, self.node),
            (NODE[:12], self.node[:12]),
            (SHA256, self.sha256(suffix)),
        ]


def snippet(section: str, language: str) -> str:
    code = rf"^```{language}\n(.*?)^```$"
    (block,) = re.findall(code, SECTIONS[section], re.MULTILINE | re.DOTALL)
    return str(block)


def shell(
    text: str, *, folder: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run *text* in a shell, with *folder* as current and home directory."""
    return subprocess.run(
        ["sh", "-ec", text],  # noqa: S607 - POSIX requires it
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def paste(text: str, *, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run *text* as `shell` does, require success, and return its output."""
    done = shell(text, folder=folder, env=env)
    assert done.returncode == 0, (text, done.stdout, done.stderr)
    return done.stdout


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
