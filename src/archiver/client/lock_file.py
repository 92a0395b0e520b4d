"""A file that locks archives: the names that a user gave, and the bytes that they meant."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from archiver.client.api_response import Located
from archiver.client.archive_request import ArchiveRequest
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.lock_values import find_problem, require_apart

VERSION = 1
FILE_MAX_BYTES = 16 * 1024**2

LOCK_FILE = "the lock file"

NEW_HINT = "Check its name. `archiver lock FILE SOURCE/REPO@REV` makes a new one."
NAME_HINT = "Choose a name, as in NAME=SOURCE/REPO@REV."
NAME_ALLOWED = "allowed: letters, digits, . _ -"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """An archive that a user names; ``node``, ``sha256`` and ``size`` once it is locked.

    It is fetched to ``file``, or extracted into the folder ``extract`` without the first ``strip``
    components of its paths. Both are relative.
    """

    source: str
    repo: str
    rev: str
    subdir: str = ""
    suffix: str = "tar.gz"
    submodules: bool = False
    lfs: bool = False
    file: str = ""
    extract: str = ""
    strip: int = 0
    node: str = ""
    sha256: str = ""
    size: int = 0

    @property
    def is_locked(self) -> bool:
        return bool(self.node and self.sha256)

    @property
    def named(self) -> ArchiveRequest:
        """The archive that the names mean now."""
        return ArchiveRequest(
            self.source,
            self.repo,
            self.rev,
            self.subdir,
            self.suffix,
            submodules=self.submodules,
            lfs=self.lfs,
        )

    @property
    def locked(self) -> ArchiveRequest:
        """The archive that they meant when it was locked, and no other bytes."""
        return replace(self.named, rev=self.node, sha256=self.sha256)

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the parameters that are set to 1."""
        return (*(("submodules",) if self.submodules else ()), *(("lfs",) if self.lfs else ()))

    def file_name(self, name: str) -> str:
        return self.file or f"{name}.{self.suffix}"

    def path(self, name: str) -> str:
        """Where the archive goes, as a file or a folder."""
        return self.extract or self.file_name(name)

    def lock(self, located: Located) -> Entry:
        return replace(self, node=located.node, sha256=located.sha256, size=located.size_bytes)

    def to_json(self) -> dict[str, object]:
        """Return the members that the file has."""
        return {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}


_DEFAULTS = {field.name: field.default for field in fields(Entry)}

Entries = Mapping[str, Entry]
"""By their names, which are unique in a file."""


def read_lock(path: Path, *, may_be_new: bool = False) -> Entries:
    """Return the entries of a file; none of a new one. Raises InvalidUsage."""
    try:
        document = json.loads(_read_file(path), object_pairs_hook=_unique)
    except FileNotFoundError as exc:
        if may_be_new:
            return {}
        raise InvalidUsage(f"{path} does not exist", hint=NEW_HINT) from exc
    except OSError as exc:
        raise InvalidUsage(f"{path}: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        line = f", line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise InvalidUsage(f"{path}{line} is not JSON, or has a key twice") from exc
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InvalidUsage(f'{path} is no lock file: it needs "version": {VERSION}')
    archives = document.get("archives", {})
    if not isinstance(archives, dict):
        raise InvalidUsage(f"{path}: archives must be an object")
    entries = {name: _parse_entry(name, value, path) for name, value in archives.items()}
    require_places(path, entries)
    return entries


def require_places(path: Path, entries: Entries) -> None:
    """Raise InvalidUsage if two archives of the lock file *path*, or it, share a place."""
    places = {name: entry.path(name) for name, entry in entries.items()}
    require_apart({**places, LOCK_FILE: path.name}, str(path))


def write_lock(path: Path, entries: Entries) -> None:
    """Replace the file as a whole, with the entries in the order of their names.

    Raises CommandFailed.
    """
    archives = {name: entries[name].to_json() for name in sorted(entries)}
    text = json.dumps({"version": VERSION, "archives": archives}, indent=2, ensure_ascii=False)
    try:
        _replace(Path(os.path.realpath(path)), f"{text}\n")
    except OSError as exc:
        raise CommandFailed(f"{path}: {exc.strerror}") from exc


def _replace(target: Path, text: str) -> None:
    try:
        mode = target.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o644
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)  # noqa: PTH101
        os.replace(temporary, target)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise


def require_name(name: str) -> str:
    """Return *name*. Raises InvalidUsage unless it can also name a file."""
    if not _NAME.fullmatch(name):
        raise InvalidUsage(f"'{name}' is no name of an archive ({NAME_ALLOWED})", hint=NAME_HINT)
    return name


def _read_file(path: Path) -> bytes:
    """Return the content of a file; a FIFO would block. Raises InvalidUsage or OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidUsage(f"{path} is not a file")
        content = file.read(FILE_MAX_BYTES + 1)
    if len(content) > FILE_MAX_BYTES:
        raise InvalidUsage(f"{path} is too large for a lock file")
    return content


def _unique(members: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object. Raises ValueError if a key is there twice, of which readers differ."""
    found = dict(members)
    if len(found) != len(members):
        raise ValueError
    return found


def _parse_entry(name: str, value: object, path: Path) -> Entry:
    where = f"{path}: {name}"
    if not _NAME.fullmatch(name):
        raise InvalidUsage(f"{where} is no name of an archive ({NAME_ALLOWED})")
    if not isinstance(value, dict):
        raise InvalidUsage(f"{where} must be an object")
    if unknown := value.keys() - _DEFAULTS.keys():
        raise InvalidUsage(f"{where} has the unknown key {min(unknown)}")
    for key, member in value.items():
        if problem := find_problem(key, member):
            raise InvalidUsage(f"{where}: {key} {problem}")
    for key in ("source", "repo", "rev"):
        if not value.get(key):
            raise InvalidUsage(f"{where} needs {key}")
    return Entry(**value)
