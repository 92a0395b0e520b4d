"""Has git look up attributes of paths, as the ``.gitattributes`` of a whole commit set them."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Generic, TypeAlias, TypeVar

from archiver.errors import MirrorFailed
from archiver.model import Node
from archiver.runtime.threads import run_in_thread
from archiver.sources.git.listing import spool
from archiver.sources.git.mirror import Mirror

T = TypeVar("T")

Wanted: TypeAlias = Callable[[], Iterator[tuple[bytes, T]]]
"""Returns the paths to look up, each with a value for ``Take``: twice the same ones. Blocks."""

Take: TypeAlias = Callable[[bytes, T, Sequence[bytes]], None]
"""Called for each path in order, with its value and those of its attributes. Blocks."""

_FIELDS = 3
"""Git prints path, name and value of each attribute."""


async def look_up_attributes(
    mirror: Mirror,
    node: Node,
    names: Sequence[str],
    *,
    wanted: Wanted[T],
    take: Take[T],
    cpu: timedelta,
) -> None:
    """Call *take* for each of the *wanted* paths with the values of the attributes *names*.

    They come from an index of the whole commit, so attributes above a subdir count. Git may use
    *cpu* of processor time. Raises GitFailed, MirrorFailed, NoRoom, or OSError.
    """
    with ExitStack() as stack:
        paths = stack.enter_context(spool(mirror.scratch))
        await run_in_thread(_write_paths, paths, wanted())
        if not paths.tell():
            return
        paths.seek(0)
        index = stack.enter_context(_index_file(mirror.scratch))
        git = mirror.git.limited(cpu=cpu).with_index(index)
        await git.run("read-tree", node)
        reader = _Reader(wanted(), take, attributes=len(names))
        arguments = ("check-attr", "--cached", "--stdin", "-z", *names)
        async with git.stream(*arguments, stdin=paths) as output:
            async for piece in output:
                await run_in_thread(reader.add, piece)
        reader.finish()


def _write_paths(file: BinaryIO, wanted: Iterator[tuple[bytes, T]]) -> None:
    file.writelines(path + b"\0" for path, _ in wanted)
    file.flush()


@contextmanager
def _index_file(scratch: Path) -> Iterator[Path]:
    """Yield the path of a file that does not exist yet, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield Path(folder) / "index"


class _Reader(Generic[T]):
    """Reads the output of ``git check-attr -z``."""

    def __init__(
        self, wanted: Iterator[tuple[bytes, T]], take: Take[T], *, attributes: int
    ) -> None:
        self._wanted = wanted
        self._take = take
        self._width = _FIELDS * attributes
        self._fields: list[bytes] = []
        self._incomplete = b""

    def add(self, output: bytes) -> None:
        fields = (self._incomplete + output).split(b"\0")
        self._incomplete = fields.pop()
        self._fields += fields
        whole = len(self._fields) - len(self._fields) % self._width
        for start in range(0, whole, self._width):
            self._add_path(self._fields[start : start + self._width])
        del self._fields[:whole]

    def _add_path(self, fields: Sequence[bytes]) -> None:
        found = next(self._wanted, None)
        if found is None or any(each != found[0] for each in fields[::_FIELDS]):
            raise MirrorFailed("git looked up the attributes of another path")
        self._take(*found, fields[_FIELDS - 1 :: _FIELDS])

    def finish(self) -> None:
        if self._fields or self._incomplete or next(self._wanted, None):
            raise MirrorFailed("git looked up the attributes of a commit incompletely")
