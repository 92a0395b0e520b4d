"""What a user does without Archiver: clone a superproject with its LFS files, and pack that."""

import os
import shutil
import time
from pathlib import Path

from benchmarks.programs import need, run
from benchmarks.superproject import PROJECT, Superproject
from tests.git_repositories import git_environment
from tests.parts.git_host import GitHost

JOBS = 4
"""Submodules that git fetches at a time."""

_CONFIG = """
[filter "lfs"]
	clean = git-lfs clean -- %f
	smudge = git-lfs smudge -- %f
	process = git-lfs filter-process
	required = true
[advice]
	detachedHead = false
"""

_STORAGE = """
[lfs]
	storage = {}
"""


class Clones:
    """Clones of *superproject* from *host*, below *folder*.

    ``kept`` is a full clone with all submodules and LFS files. It stays from run to run, while the
    others are removed.
    """

    def __init__(self, superproject: Superproject, host: GitHost, folder: Path) -> None:
        need("git", "git-lfs", "tar", "gzip")
        folder.mkdir()
        self._superproject = superproject
        self._url = f"{host.url}/{PROJECT}.git"
        self._folder = folder
        self._kept = folder / "kept"
        self._alone = self._environment("alone", _CONFIG)
        self._sharing = self._environment("sharing", _CONFIG + _STORAGE.format(folder / "lfs"))

    def _environment(self, name: str, config: str) -> dict[str, str]:
        path = self._folder / f"{name}.gitconfig"
        path.write_text(config)
        return {
            **git_environment(),
            "HOME": str(self._folder),
            "GIT_CONFIG_GLOBAL": str(path),
            "NO_PROXY": os.environ.get("NO_PROXY", ""),
        }

    def prepare(self) -> None:
        """Make the clone that is kept, of the first commit."""
        self._superproject.show(0)
        self._clone(self._kept, self._sharing)

    def _clone(self, target: Path, environment: dict[str, str], *options: str | Path) -> float:
        command = ["git", "clone", "--quiet", "--recurse-submodules", f"--jobs={JOBS}"]
        return run([*command, *options, self._url, target], env=environment)

    def pack_new(self, number: int) -> float:
        """Clone a commit without any reference, and pack it."""
        self._superproject.show(number)
        return self._pack(self._alone)

    def pack_with_reference(self, number: int) -> float:
        """Clone a commit with references to the clone that is kept, and pack it."""
        self._superproject.show(number)
        return self._pack(self._sharing, "--reference", self._kept)

    def _pack(self, environment: dict[str, str], *options: str | Path) -> float:
        target, packed = self._folder / "clone", self._folder / "clone.tar.gz"
        shallow = ("--depth=1", "--shallow-submodules")
        started = time.monotonic()
        self._clone(target, environment, *shallow, *options)
        command = 'tar --create --exclude=.git --directory="$1" . | gzip >"$2"'
        run(["sh", "-c", command, "sh", target, packed])
        taken = time.monotonic() - started
        shutil.rmtree(target)
        packed.unlink()
        return taken

    def update(self, number: int) -> float:
        """Update the clone that is kept to a commit, and return the seconds."""
        self._superproject.show(number)
        git: list[str | Path] = ["git", "-C", self._kept]
        taken = run([*git, "pull", "--quiet"], env=self._sharing)
        update = ["submodule", "update", "--quiet", "--recursive"]
        return taken + run([*git, *update], env=self._sharing)
