"""Git repositories for tests, made by git itself. The same calls make the same nodes."""

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

DATE = "1500000000 +0000"
PERSON = "Tester <tester@example.org>"

MAIN = "refs/heads/main"

NON_UTF8 = "caf\udce9/men\udcfc.txt"
"""A name in Latin-1."""

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, link or submodule: git's mode, and the content or, for a submodule, a node."""

    mode: str
    content: bytes


Files: TypeAlias = Mapping[str, bytes | Entry]
"""Paths and contents. Surrogates stand for bytes outside UTF-8, as in ``os.fsdecode``; bytes stand
for the content of an ordinary file."""


def executable(content: bytes) -> Entry:
    return Entry(mode="100755", content=content)


def symlink(target: bytes) -> Entry:
    return Entry(mode="120000", content=target)


def submodule(node: str) -> Entry:
    return Entry(mode="160000", content=node.encode())


def git_environment() -> dict[str, str]:
    """Return an environment in which nothing of the machine's configuration applies."""
    name, _, mail = PERSON.rstrip(">").partition(" <")
    people = {
        f"GIT_{role}_{part}": value
        for role in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", name), ("EMAIL", mail), ("DATE", DATE))
    }
    return {
        **people,
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
    }


@dataclass(frozen=True, slots=True)
class GitRepository:
    """A bare repository on disk."""

    path: Path

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run git in the repository, and return its output. Fails the test if git fails."""
        return self.git_bytes(*arguments, stdin=stdin).decode(errors="surrogateescape").strip()

    def git_bytes(
        self,
        *arguments: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] = MappingProxyType({}),
        check: bool = True,
    ) -> bytes:
        """Return the output of git as bytes. With *check*, the test fails if git fails."""
        done = subprocess.run(
            [_git(), "-C", str(self.path), *arguments],
            input=stdin,
            capture_output=True,
            env={**git_environment(), **environment},
            check=False,
        )
        assert done.returncode == 0 or not check, (arguments, done.stderr)
        return done.stdout

    def commit(
        self,
        files: Files,
        *,
        ref: str = MAIN,
        parents: Iterable[str] | None = None,
        message: str = "Change\n",
    ) -> str:
        """Commit a tree of exactly *files* to *ref*, and return the node.

        Without *parents*, the parent is the commit of *ref*, if that exists.
        """
        if parents is None:
            parents = [old] if (old := self.find(ref)) else []
        lines = [f"commit {ref}", "mark :1", f"author {PERSON} {DATE}"]
        lines += [f"committer {PERSON} {DATE}", f"data {len(message.encode())}"]
        head = "\n".join(lines).encode() + f"\n{message}\n".encode()
        for number, parent in enumerate(parents):
            head += f"{'merge' if number else 'from'} {parent}\n".encode()
        body = b"".join(_instruction(path, entry) for path, entry in files.items())
        stream = _reset(ref) + head + b"deleteall\n" + body + b"get-mark :1\ndone\n"
        return self.git("fast-import", "--quiet", "--force", "--done", stdin=stream)

    def find(self, ref: str) -> str | None:
        """Return the object of *ref*, or None if there is no such ref."""
        return self.git("for-each-ref", "--format=%(objectname)", ref) or None

    def branch(self, name: str, node: str) -> None:
        """Create the branch, or move it."""
        self.git("update-ref", f"refs/heads/{name}", node)

    def tag(self, name: str, target: str) -> None:
        """Create a lightweight tag."""
        self.git("update-ref", f"refs/tags/{name}", target)

    def annotated_tag(self, name: str, target: str) -> str:
        """Create a tag object, which may lead to another one, and return its id."""
        self.git("tag", "--annotate", "--message", name, name, target)
        return self.git("rev-parse", f"refs/tags/{name}")

    def refs(self, targets: Mapping[str, str]) -> None:
        """Create refs by their full names."""
        lines = "".join(f"create {name} {target}\n" for name, target in targets.items())
        self.git("update-ref", "--stdin", stdin=lines.encode())

    def unreachable_commit(self, files: Files) -> str:
        """Return a commit that no ref shows."""
        ref = "refs/heads/short-lived"
        node = self.commit(files, ref=ref, parents=())
        self.git("update-ref", "-d", ref)
        return node


def create(path: Path, *, object_format: str = "sha1") -> GitRepository:
    """Create an empty bare repository at *path*."""
    path.mkdir(parents=True)
    repository = GitRepository(path)
    repository.git(
        *("init", "--quiet", "--bare", "--template=", "--initial-branch=main"),
        f"--object-format={object_format}",
    )
    return repository


def _git() -> str:
    return shutil.which("git") or "git"


def _reset(ref: str) -> bytes:
    """Return the instruction that makes a commit without parents begin a new history."""
    return f"reset {ref}\n\n".encode()


def _instruction(path: str, entry: bytes | Entry) -> bytes:
    if isinstance(entry, bytes):
        entry = Entry(mode="100644", content=entry)
    raw = path.encode(errors="surrogateescape")
    quoted = b'"' + b"".join(b"\\%03o" % byte for byte in raw) + b'"'
    if entry.mode == "160000":
        return b"M 160000 %s %s\n" % (entry.content, quoted)
    head = b"M %s inline %s\ndata %d\n" % (entry.mode.encode(), quoted, len(entry.content))
    return head + entry.content + b"\n"


# Trees, each of one kind.

SIMPLE: Files = {
    "README": b"A repository to try things in.\n",
    "src/main.c": b"int main(void) { return 0; }\n" * 50,
    "src/lib/deep/er/leaf.txt": b"leaf\n",
    "empty": b"",
}

MODES: Files = {
    "run.sh": executable(b"#!/bin/sh\nexit 0\n"),
    "plain": b"plain\n",
    "link": symlink(b"plain"),
    "dir/up": symlink(b"../plain"),
    "dangling": symlink(b"no/such/file"),
}

ODD_NAMES: Files = {
    NON_UTF8: b"non-UTF-8\n",
    "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve": b"UTF-8\n",
    "with blank and 'quotes\".txt": b"quoted\n",
    "a\tb\\c": b"escaped\n",
    f"{'long/' * 40}name.txt": b"longer than a tar header has room for\n",
    "-dash": b"dash\n",
    "a.b/c": b"sorts after a.b\n",
    "a.b-c": b"sorts before a.b/\n",
    "a/c": b"sorts after a.b\n",
}

CASES: Files = {"Makefile": b"one\n", "makefile": b"two\n", "Src/a": b"a\n", "src/a": b"b\n"}

ATTRIBUTES: Files = {
    ".gitattributes": (
        b"secret/** export-ignore\n"
        b"version.txt export-subst\n"
        b"*.bat text eol=crlf\n"
        b"ident.c ident\n"
        b"utf16.txt working-tree-encoding=UTF-16LE text eol=lf\n"
    ),
    "secret/key": b"ignored in archives\n",
    "version.txt": b"$Format:%H$\n",
    "dos.bat": b"echo one\necho two\n",
    "ident.c": b"/* $Id$ */\n",
    "utf16.txt": "caf\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode(),
    "plain.txt": b"unchanged $Format:%H$\n",
    "sub/.gitattributes": b"hidden export-ignore\n",
    "sub/hidden": b"ignored too\n",
    "sub/shown": b"shown\n",
}

WITH_LFS: Files = {
    ".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
    "large.bin": LFS_POINTER,
}

SUBMODULE_NODE = "0123456789abcdef0123456789abcdef01234567"

WITH_SUBMODULE: Files = {
    ".gitmodules": b'[submodule "lib"]\n\tpath = lib\n\turl = https://example.org/lib.git\n',
    "README": b"with a submodule\n",
    "lib": submodule(SUBMODULE_NODE),
    "third/party": submodule(SUBMODULE_NODE),
}


# Histories.


def commit_rounds(repository: GitRepository, rounds: int, *, files: int = 20) -> list[str]:
    """Commit a tree, then change one of its files in each round. Return the nodes, oldest first."""
    tree = {f"dir{number % 4}/file{number}.txt": b"line\n" * 200 for number in range(files)}
    nodes = []
    for number in range(rounds):
        tree["dir0/file0.txt"] = b"round %d\n" % number + b"line\n" * 200
        nodes.append(repository.commit(tree, message=f"Round {number}\n"))
    return nodes


def add_many_refs(repository: GitRepository, node: str, number: int = 5000) -> None:
    """Create *number* refs to *node*: half of them branches, half of them tags."""
    half = range(number // 2)
    names = [f"refs/heads/topic/{i:05}" for i in half] + [f"refs/tags/v{i:05}" for i in half]
    repository.refs(dict.fromkeys(names, node))


def rewrite_history(repository: GitRepository, files: Files, ref: str = MAIN) -> str:
    """Replace *ref* by a commit without parents, like a forced push, and return its node."""
    return repository.commit(files, ref=ref, parents=(), message="Rewritten\n")
