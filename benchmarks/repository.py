"""A Mercurial repository of a real source tree, and an hgweb that serves its zip."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.inputs import MB, Inputs
from benchmarks.trees import Tree
from tests.parts.process import accepts, free_port, running
from tests.system.stack import binary

ENV = {**os.environ, "HGRCPATH": "", "HGPLAIN": "1", "HGUSER": "bench", "HGENCODING": "utf-8"}
TREE_BYTES, QUICK_TREE_BYTES = 2_000 * MB, 2 * MB


class Repository:
    """A repository with one changeset, ``node``."""

    def __init__(self, inputs: Inputs, tree: Tree) -> None:
        self._tree = tree
        self._path = inputs.folder / "hg" / tree.name
        if not (self._path / "done").exists():
            print(
                f"  committing the tree in {self._path}, for this run and later ones: some minutes"
            )
            self._make(inputs)
        self.node = self._hg("log", "--rev", ".", "--template", "{node}")

    def _make(self, inputs: Inputs) -> None:
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True)
        self._hg("init")
        most_bytes = QUICK_TREE_BYTES if inputs.quick else TREE_BYTES
        for member, content in inputs.members(most_bytes, self._tree):
            path = self._path / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if member.issym():
                path.symlink_to(member.linkname)
            else:
                path.write_bytes(content)
                path.chmod(member.mode)
        self._hg("commit", "--addremove", "--quiet", "--message", "All of it", "--date", "0 0")
        (self._path / "done").touch()

    def _hg(self, *words: str) -> str:
        command = [binary("hg"), "--cwd", str(self._path), *words]
        ended = subprocess.run(command, env=ENV, check=True, stdout=subprocess.PIPE, text=True)
        return ended.stdout

    @contextmanager
    def served(self, log: Path) -> Iterator[str]:
        """Run an hgweb, and yield the URL of the zip."""
        port = free_port()
        command = [
            *(binary("hg"), "serve", "--cwd", str(self._path.parent)),
            *("--web-conf", str(self._web_conf()), "--address", "127.0.0.1", "--port", str(port)),
        ]
        with running(command, log=log, ready=lambda: accepts(port), env=ENV):
            yield f"http://127.0.0.1:{port}/{self._tree.name}/archive/{self.node[:12]}.zip"

    def _web_conf(self) -> Path:
        name = self._tree.name
        conf = self._path.parent / f"{name}.conf"
        conf.write_text(f"[paths]\n{name} = {self._path}\n[web]\nallow-archive = zip\n")
        return conf
