"""The archives that a user of ``archiver lock`` adds to a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from archiver.client.failures import InvalidUsage
from archiver.client.lock_file import Entries, Entry, require_name
from archiver.client.lock_values import find_problem


@dataclass(frozen=True)
class Additions:
    """Reads ``[NAME=]SOURCE/REPO@REV``. Without an option, the entry keeps its value."""

    entries: Entries
    subdir: str | None = None
    suffix: str | None = None
    submodules: bool | None = None
    lfs: bool | None = None

    def parse(self, texts: Sequence[str]) -> Entries:
        """Return the entries of the added archives. Raises InvalidUsage."""
        if not texts and self._given:
            options = ", ".join(f"--{name}" for name in self._given)
            raise InvalidUsage(f"no archive is added, and {options} needs one")
        added: dict[str, Entry] = {}
        for text in texts:
            name, entry = self._parse(text)
            if name in added:
                raise InvalidUsage(
                    f"several of the added archives are named {name}",
                    hint=f"Give each a name of its own, as in NAME={text}",
                )
            added[name] = entry
        return added

    @property
    def _given(self) -> dict[str, Any]:
        """The members of an entry that the options set."""
        options = {
            "subdir": self.subdir,
            "suffix": self.suffix,
            "submodules": self.submodules,
            "lfs": self.lfs,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _parse(self, text: str) -> tuple[str, Entry]:
        given, equals, named = text.partition("=")
        if not equals or "@" in given:  # it belongs to the rev
            given, equals, named = "", "", text
        source, _, rest = named.partition("/")
        repo, _, rev = rest.rpartition("@")
        repo = repo.strip("/")
        if not (source and repo and rev) or {"=", "@"}.intersection(source):
            raise InvalidUsage(f"{text} is not [NAME=]SOURCE/REPO@REV")
        name = require_name(given if equals else repo.rpartition("/")[2])
        old = self.entries.get(name)
        if old and not equals and (old.source, old.repo) != (source, repo):
            raise InvalidUsage(
                f"{name} is of another repo in this file", hint=f"Name it, as in NAME={text}"
            )
        entry = self._change(old, source, repo, rev)
        _require_values(text, entry)
        return name, old if old and old.named == entry.named else entry

    def _change(self, old: Entry | None, source: str, repo: str, rev: str) -> Entry:
        """Return an entry that is not locked, and is otherwise as the *old* one."""
        entry = old or Entry(source, repo, rev)
        return replace(
            entry,
            source=source,
            repo=repo,
            rev=rev,
            node="",
            sha256="",
            size=0,
            **self._given,
        )


def _require_values(text: str, entry: Entry) -> None:
    for key, value in asdict(entry).items():
        if problem := find_problem(key, value):
            raise InvalidUsage(f"{text}: {key} {problem}")
