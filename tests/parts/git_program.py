"""Runs git on repositories of the tests, without any configuration of the user."""

import os
import shutil
import subprocess
from pathlib import Path

GIT = shutil.which("git") or "git is not installed"

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.com",
    "GIT_COMMITTER_NAME": "Ann",
    "GIT_COMMITTER_EMAIL": "ann@example.com",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}

EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
"""The id of the tree without entries, by the number of its digits."""


class GitRepository:
    """A bare repository whose ids have *digits*."""

    def __init__(self, folder: Path, *, digits: int = 40) -> None:
        self.folder = folder
        self.digits = digits
        subprocess.run(
            (GIT, "init", "-q", "--bare", f"--object-format={self._format}", str(folder)),
            env=ENVIRONMENT,
            check=True,
        )

    @property
    def _format(self) -> str:
        return "sha1" if self.digits == 40 else "sha256"

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Return the output of git. Raises CalledProcessError if git fails."""
        return subprocess.run(
            (GIT, "--git-dir", str(self.folder), *arguments),
            input=stdin,
            env=ENVIRONMENT,
            capture_output=True,
            check=True,
        ).stdout

    def add_object(self, kind: str, content: bytes) -> str:
        """Store an object, and return its id."""
        written = self.run("hash-object", "-t", kind, "-w", "--stdin", "--literally", stdin=content)
        return written.decode().strip()

    def make_tree(self, entries: list[tuple[int, bytes, str]]) -> str:
        """Store the tree of (mode, name, id), and return its id. Git sorts the entries."""
        kinds = {0o160000: b"commit", 0o40000: b"tree"}
        lines = [
            b"%06o %s %s\t%s\0" % (mode, kinds.get(mode, b"blob"), object_id.encode(), name)
            for mode, name, object_id in entries
        ]
        made = self.run("mktree", "-z", "--missing", stdin=b"".join(lines))
        return made.decode().strip()

    def commit(self, tree: str, message: str = "change") -> str:
        """Store a commit without parents, and return its id."""
        return self.run("commit-tree", tree, "-m", message).decode().strip()

    def read(self, kind: str, object_id: str) -> bytes:
        """Return the content of an object."""
        return self.run("cat-file", kind, object_id)

    def archive(self, node: str, *paths: str, root: str) -> bytes:
        """Return the tar of ``git archive``, below the directory *root*."""
        return self.run("-c", "tar.umask=002", "archive", f"--prefix={root}/", node, *paths)


Files = dict[bytes, tuple[int, bytes]]
"""Git's mode and the content by path. The content of a submodule is the id of its commit."""


def write_tree(repository: GitRepository, files: Files) -> str:
    """Store *files*, and return the id of their tree."""
    entries, folders = [], dict[bytes, Files]()
    for path, (mode, content) in files.items():
        name, _, rest = path.partition(b"/")
        if rest:
            folders.setdefault(name, {})[rest] = (mode, content)
        elif mode == 0o160000:
            entries.append((mode, name, content.decode()))
        else:
            entries.append((mode, name, repository.add_object("blob", content)))
    for name, below in folders.items():
        entries.append((0o40000, name, write_tree(repository, below)))
    return repository.make_tree(entries)


def commit_files(repository: GitRepository, files: Files) -> str:
    """Store a commit with *files*, and return its id."""
    return repository.commit(write_tree(repository, files))
