"""How a lock file changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from archiver.client.lock_file import Entries, Entry
from archiver.client.text import printable

NODE_DIGITS = 12

_SIGNS = {"added": "+", "removed": "-", "other_bytes": "!"}


@dataclass(frozen=True)
class Change:
    """An archive that is not what it was. Before, or from now on, the file may not have it."""

    name: str
    old: Entry | None
    new: Entry | None

    @property
    def kind(self) -> str:
        """Return ``added``, ``removed``, ``changed``, ``locked``, ``moved`` or ``other_bytes``."""
        if self.old is None or self.new is None:
            return "removed" if self.old else "added"
        if self.old.named != self.new.named:
            return "changed"
        if not self.old.is_locked:
            return "locked"
        if self.old.node != self.new.node:
            return "moved"
        return "other_bytes" if self.old.sha256 != self.new.sha256 else "changed"

    def describe(self) -> str:
        """Return a line for people."""
        shown = self.new or self.old
        assert shown  # noqa: S101 - for mypy
        subdir = f":{shown.subdir}" if shown.subdir else ""
        flags = f" [{', '.join(shown.flags)}]" if shown.flags else ""
        what = f"{shown.source}/{shown.repo}@{shown.rev}{subdir}{flags}"
        sign = _SIGNS.get(self.kind, "~")
        return printable(f"{sign} {self.name}  {what}  {', '.join(self._details())}")

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "change": self.kind,
            "from": self.old.to_json() if self.old else None,
            "to": self.new.to_json() if self.new else None,
        }

    def _details(self) -> Iterator[str]:
        old, new = self.old, self.new
        if self.kind == "other_bytes" and old and new:
            yield f"{_short(old)} has other bytes now: sha256 {new.sha256}"
            return
        nodes = [_short(each) for each in (old, new) if each and each.node]
        yield " -> ".join(dict.fromkeys(nodes)) or "not locked"
        if self.kind == "changed" and old and new:
            after = asdict(new)
            hidden = {"node", "sha256"} | ({"size"} if old.sha256 != new.sha256 else set())
            for key, value in asdict(old).items():
                if key not in hidden and value != after[key]:
                    yield f"{key} {_shown(value)} -> {_shown(after[key])}"


def find_changes(before: Entries, after: Entries) -> Iterator[Change]:
    """Yield the archives that are new, have changed or are gone, in the order of their names."""
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield Change(name, before.get(name), after.get(name))


def _shown(value: object) -> str:
    return "yes" if value is True else str(value or "(none)")


def _short(entry: Entry) -> str:
    return entry.node[:NODE_DIGITS]
