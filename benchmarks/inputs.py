"""The archives that the host sends: a real source tree, packed once and cached.

An archive is a sequence of gzip members, one per cached file: the tree, repeated, then its
last file and the two blocks of zeros that end a tar. Several members are one gzip (RFC 1952, 2.2),
so that an archive of 8 GB needs no file of 8 GB.
"""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.trees import LINUX, Members, Tree, library

NODE = "5ca1ab1e" * 5
BASENAME = "linux"
ROOT = f"{BASENAME}-{NODE[:12]}"
NOTE = f"repo: {'0' * 40}\nnode: {NODE}\nbranch: default\nlatesttag: null\n".encode()

LAST_FILE = "~last"
"""The last file of every archive: `benchmarks.host` lists it."""

LEVEL = 9
"""The level of hgweb."""

MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """An archive, as the files to send in order."""

    name: str
    pieces: tuple[Path, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.stat().st_size for piece in self.pieces)

    @property
    def gigabytes(self) -> float:
        return self.size_bytes / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Unpacked bytes of the tree, copies of it under other names, and repetitions of all that."""

    tree_bytes: int
    copies: int = 1
    times: int = 1


RECIPES = {
    "tiny": Recipe(tree_bytes=0, copies=0),
    "10MB": Recipe(tree_bytes=45 * MB),
    "100MB": Recipe(tree_bytes=800 * MB),
    "1GB": Recipe(tree_bytes=2_000 * MB, copies=5),
    "8GB": Recipe(tree_bytes=2_000 * MB, copies=5, times=8),
}

QUICK_RECIPES = {
    "tiny": Recipe(tree_bytes=0, copies=0),
    "10MB": Recipe(tree_bytes=1 * MB),
    "100MB": Recipe(tree_bytes=2 * MB),
    "1GB": Recipe(tree_bytes=2 * MB, copies=2),
    "8GB": Recipe(tree_bytes=2 * MB, copies=2, times=8),
}
"""Python's own library, which is always installed: only to show that the benchmarks run."""


class Inputs:
    """The archives, in a folder that is kept for the next run."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.folder = folder / ("quick" if quick else "full")
        self.quick = quick
        self._recipes = QUICK_RECIPES if quick else RECIPES
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, name: str) -> Input:
        """Return the archive of this name, packed if necessary."""
        recipe = self._recipes[name]
        piece = self.folder / f"{recipe.tree_bytes // MB}MB-times-{recipe.copies}.gz"
        if not piece.exists():
            print(f"  packing {piece}, for this run and later ones")
            self._pack(piece, recipe)
        return Input(name=name, pieces=(piece,) * recipe.times + (self._end(),))

    def _end(self) -> Path:
        end = self.folder / "last.gz"
        if not end.exists():
            with gzip.open(end, "wb") as packed:
                _add(packed, tarfile.TarInfo(f"{ROOT}/{LAST_FILE}"), b"")
                packed.write(bytes(2 * tarfile.BLOCKSIZE))
        return end

    def _pack(self, piece: Path, recipe: Recipe) -> None:
        """Write the tree as hgweb does: regular files and links without owners, no folders."""
        unfinished = piece.with_suffix(".new")
        with gzip.open(unfinished, "wb", LEVEL) as packed:
            _add(packed, tarfile.TarInfo(f"{ROOT}/.hg_archival.txt"), NOTE)
            for copy in range(recipe.copies):
                for member, content in self.members(recipe.tree_bytes):
                    member.name = f"{ROOT}/{copy}/{member.name}"
                    _add(packed, member, content)
        unfinished.rename(piece)

    def members(self, most_bytes: int, tree: Tree = LINUX) -> Members:
        """Yield members of *tree*, or of Python's library for a quick run, up to so many bytes."""
        room = most_bytes
        for member, content in library() if self.quick else tree.members(self.folder):
            room -= len(content)
            if room < 0:
                return
            yield member, content


def _add(packed: gzip.GzipFile, member: tarfile.TarInfo, content: bytes) -> None:
    """Append one member only: closing a `tarfile` would also append the end of the tar."""
    member.size = len(content)
    buffer = io.BytesIO()
    buffer.write(member.tobuf(tarfile.PAX_FORMAT))
    buffer.write(content)
    buffer.write(bytes(-len(content) % tarfile.BLOCKSIZE))
    packed.write(buffer.getvalue())
