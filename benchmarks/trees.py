"""Real source trees, from Debian packages."""

import lzma
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import need, run

Members = Iterator[tuple[tarfile.TarInfo, bytes]]
"""Files and links, with names relative to the root, and their contents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """``packed`` is the path of the tree within the package, as a tar.xz."""

    name: str
    title: str
    package: str
    packed: str

    def members(self, folder: Path) -> Members:
        return _unpacked(self._tar(folder))

    def _tar(self, folder: Path) -> Path:
        """Return the tree as a tar, which is downloaded once and cached in *folder*."""
        tar = folder / f"{self.package}.tar"
        if not tar.exists():
            need("apt-get", "dpkg-deb")
            print(
                f"  downloading Debian's {self.package}, for this run and later ones: some 100 MB"
            )
            run(["apt-get", "download", self.package], cwd=folder)
            (package,) = folder.glob(f"{self.package}_*.deb")
            run(["dpkg-deb", "-x", package, folder])
            _unpack_xz(folder / self.packed, tar)
        return tar


LINUX = Tree(
    name="linux",
    title="Linux",
    package="linux-source-6.1",
    packed="usr/src/linux-source-6.1.tar.xz",
)
GCC = Tree(
    name="gcc",
    title="GCC",
    package="gcc-12-source",
    packed="usr/src/gcc-12/gcc-12.2.0-dfsg.tar.xz",
)


def library() -> Members:
    """Yield Python's own library, which is always installed."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        yield tarfile.TarInfo(str(path.relative_to(root))), path.read_bytes()


def _unpack_xz(packed: Path, target: Path) -> None:
    unfinished = target.with_suffix(".new")
    with lzma.open(packed) as source, unfinished.open("wb") as unpacked:
        while block := source.read(1 << 20):
            unpacked.write(block)
    unfinished.rename(target)


def _unpacked(tar: Path) -> Members:
    with tarfile.open(tar) as source:
        for member in source:
            if member.isfile():
                file = source.extractfile(member)
                yield _anonymous(member), file.read() if file else b""
            elif member.issym():
                yield _anonymous(member), b""


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    copied = tarfile.TarInfo(member.name.partition("/")[2])
    copied.type, copied.linkname, copied.mtime = member.type, member.linkname, int(member.mtime)
    copied.mode = 0o777 if member.issym() else 0o755 if member.mode & 0o100 else 0o644
    return copied
