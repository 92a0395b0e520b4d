"""A file that locks archives: the names that a user gave, and the bytes that they meant."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath

from archiver.client.api_response import Located
from archiver.client.archive_get import ArchiveRequest
from archiver.client.failures import InvalidUsage

VERSION = 1
FILE_MAX_BYTES = 16 * 1024**2

NAME_ALLOWED = "allowed: letters, digits, . _ -"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HEX = re.compile(r"[0-9a-f]+")
_DIGITS = {"node": {40, 64}, "sha256": {64}}


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
        return ArchiveRequest(self.source, self.repo, self.rev, self.subdir, self.suffix)

    @property
    def locked(self) -> ArchiveRequest:
        """The archive that they meant when it was locked, and no other bytes."""
        return ArchiveRequest(
            self.source, self.repo, self.node, self.subdir, self.suffix, self.sha256
        )

    def file_name(self, name: str) -> str:
        return self.file or f"{name}.{self.suffix}"

    def lock(self, located: Located) -> Entry:
        return replace(self, node=located.node, sha256=located.sha256, size=located.size_bytes)


_DEFAULTS = {field.name: field.default for field in fields(Entry)}

Entries = Mapping[str, Entry]
"""By their names, which are unique in a file."""


def read_lock(path: Path) -> Entries:
    """Return the entries of a file; none if it does not exist. Raises InvalidUsage."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise InvalidUsage(f"{path}: {exc.strerror}") from exc
    if len(content) > FILE_MAX_BYTES:
        raise InvalidUsage(f"{path} is too large for a lock file")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as exc:
        line = f", line {exc.lineno}" if isinstance(exc, json.JSONDecodeError) else ""
        raise InvalidUsage(f"{path}{line} is not JSON") from exc
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise InvalidUsage(f'{path} is no lock file: it needs "version": {VERSION}')
    archives = document.get("archives", {})
    if not isinstance(archives, dict):
        raise InvalidUsage(f"{path}: archives must be an object")
    return {name: _parse_entry(name, value, path) for name, value in archives.items()}


def write_lock(path: Path, entries: Entries) -> None:
    """Replace the file as a whole, with the entries in the order of their names."""
    archives = {name: _members(entries[name]) for name in sorted(entries)}
    text = json.dumps({"version": VERSION, "archives": archives}, indent=2, ensure_ascii=False)
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode & 0o777
    except FileNotFoundError:
        mode = 0o644
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
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
        raise InvalidUsage(f"'{name}' is no name of an archive ({NAME_ALLOWED})")
    return name


def _members(entry: Entry) -> dict[str, object]:
    return {name: value for name, value in asdict(entry).items() if value != _DEFAULTS[name]}


def _parse_entry(name: str, value: object, path: Path) -> Entry:
    where = f"{path}: {name}"
    if not _NAME.fullmatch(name):
        raise InvalidUsage(f"{where} is no name of an archive ({NAME_ALLOWED})")
    if not isinstance(value, dict):
        raise InvalidUsage(f"{where} must be an object")
    if unknown := value.keys() - _DEFAULTS.keys():
        raise InvalidUsage(f"{where} has the unknown key {min(unknown)}")
    for key, member in value.items():
        if not _is_valid(key, member):
            raise InvalidUsage(f"{where}: {key} has a wrong value")
    for key in ("source", "repo", "rev"):
        if not value.get(key):
            raise InvalidUsage(f"{where} needs {key}")
    return Entry(**value)


def _is_valid(key: str, value: object) -> bool:
    if key in {"strip", "size"}:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not isinstance(value, str):
        return False
    if key in {"file", "extract"}:
        return not value or _is_below(PurePosixPath(value))
    if key in _DIGITS:
        return not value or (len(value) in _DIGITS[key] and bool(_HEX.fullmatch(value)))
    return True


def _is_below(path: PurePosixPath) -> bool:
    """Return whether *path* stays in the folder: lock files come from repositories."""
    return not path.is_absolute() and ".." not in path.parts and path != PurePosixPath(".")
