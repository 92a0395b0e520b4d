"""Compares the JSON of commands with docs/reference/json.md."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs/reference/json.md"
GROUPS = frozenset({"config", "engine", "index", "token"})
OPTIONAL_GROUPS = {"pins": {"add", "remove"}, "mirrors": {"drop"}}
SAME = {"pins remove": "pins add"}
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "list": list,
    "object": dict,
    "null": type(None),
}

_ROW = re.compile(r"\| (?P<keys>`[^|]+`|…) \| (?P<type>[a-z, ]*)\|")

Table = dict[str, str]
"""The type of each key. A table with the key … describes some of the keys."""


@cache
def tables() -> dict[str, list[Table]]:
    """Return the tables in the section of each command."""
    found: dict[str, list[Table]] = {}
    for section in DOCUMENT.read_text().split("\n## `archiver ")[1:]:
        name = section.partition("`")[0]
        found[name] = []
        for part in section.split("| key | type | meaning |\n")[1:]:
            table: Table = {}
            for line in part.partition("\n\n")[0].splitlines()[1:]:
                row = _ROW.match(line)
                assert row, line
                for key in row["keys"].split(", "):
                    table[key.strip("`")] = row["type"].strip()
            found[name].append(table)
    return found


def command_of(words: Sequence[str]) -> str:
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first in GROUPS or second in OPTIONAL_GROUPS.get(first, ()):
        first = f"{first} {second}"
    return SAME.get(first, first)


def documents(stdout: str) -> list[Any]:
    """Return the documents of a command, without that of its failure."""
    found = [json.loads(line) for line in stdout.splitlines()]
    return found[:-1] if found and found[-1].keys() == {"error"} else found


def check_json(words: Sequence[str], stdout: str, exit_code: int) -> None:
    """Require that each line is a document of the command, and a failure the last one.

    The failure of ``archiver doctor`` is its summary.
    """
    documents = [json.loads(line) for line in stdout.splitlines()]
    is_summary = words[0] == "doctor" and exit_code == 1
    if exit_code not in {0, 130, 143} and not is_summary:
        assert documents, f"no JSON after the exit code {exit_code}"
        error = documents.pop()
        assert error.keys() == {"error"}, error
        assert error["error"].keys() == {"code", "message", "hint", "exit_code"}
        assert error["error"]["exit_code"] == exit_code
    described = tables()[command_of(words)]
    for document in documents:
        mismatches = [_mismatch(document, table) for table in described]
        assert "" in mismatches, f"{document} is not described in {DOCUMENT.name}: {mismatches}"


def _mismatch(document: Mapping[str, object], table: Table) -> str:
    if "…" not in table and (unknown := document.keys() - table.keys()):
        return f"unknown: {', '.join(sorted(unknown))}"
    for key, text in table.items():
        names, _, optional = text.partition(", ")
        if key == "…" or (optional and key not in document):
            continue
        if key not in document:
            return f"missing: {key}"
        if not any(_is(document[key], name) for name in names.split(" or ")):
            return f"{key} is not of the type {names}"
    return ""


def _is(value: object, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
