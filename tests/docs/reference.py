"""Texts that docs/reference has from the code. To copy them: ``python -m tests.docs.reference``."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from copy import copy
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from archiver.jetstream.connection_faults import CHECKS
from archiver.settings import (
    HookSettings,
    PrewarmSettings,
    RegionSettings,
    RetentionRuleSettings,
    Settings,
    SourceSettings,
    TokenSettings,
)
from archiver.telemetry import all_metrics

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
SETTINGS, LOGS = FOLDER / "settings.md", FOLDER / "metrics-and-logs.md"

ROW = re.compile(r"^(\| `([\w.]+)` \|(?:.*\|)?) .* \|$", re.MULTILINE)
"""A row of a table: all but its last cell, and the name in its first cell."""


def _settings(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    texts = _docstrings_of_fields(model)
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _settings(kind, f"{path}{name}.")
        elif f"{path}{name}" not in {"hooks", "prewarm", "regions", "sources", "tokens"}:
            setting = copy(field)
            setting.description = texts.get(name)
            yield f"{path}{name}", setting


def _docstrings_of_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring below each field. pydantic could read them too, but for every start."""
    (definition,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str() as text)),
            ):
                texts[name] = " ".join(text.split())
            case _:
                pass  # a field without a docstring, or a method
    return texts


ALL_SETTINGS = {
    **dict(_settings(Settings)),
    **dict(_settings(RegionSettings, "regions.NAME.")),
    **dict(_settings(SourceSettings, "sources.NAME.")),
    **dict(_settings(TokenSettings, "tokens.NAME.")),
    **dict(_settings(PrewarmSettings, "prewarm.NAME.")),
    **dict(_settings(HookSettings, "hooks.NAME.")),
    **dict(_settings(RetentionRuleSettings, "retention.rules.")),
}


def setting_texts() -> dict[str, str]:
    return {name: field.description or "" for name, field in ALL_SETTINGS.items()}


def metric_texts() -> dict[str, str]:
    metrics = [metric for each in all_metrics().values() for metric in each.describe()]
    suffixes = {"counter": "_total"}
    return {f"{m.name}{suffixes.get(m.type, '')}": m.documentation for m in metrics}


def section(page: str, heading: str) -> str:
    """Return the text below *heading*, up to the next heading of the second level."""
    (text,) = re.findall(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL
    )
    return str(text)


def names(text: str) -> set[str]:
    """Return the names in the first cells of tables."""
    return {name for _, name in ROW.findall(text)}


def with_texts(text: str, texts: Mapping[str, str]) -> str:
    """Return *text* with the last cell of each named row replaced."""

    def row(match: re.Match[str]) -> str:
        meaning = texts.get(match[2])
        return match[0] if meaning is None else f"{match[1]} {meaning} |"

    return ROW.sub(row, text)


def updated() -> dict[Path, str]:
    """Return each page as the code wants it."""
    logs = LOGS.read_text()
    for heading, texts in (("Metrics", metric_texts()), ("Reasons of the engine", CHECKS)):
        below = section(logs, heading)
        logs = logs.replace(below, with_texts(below, texts))
    return {SETTINGS: with_texts(SETTINGS.read_text(), setting_texts()), LOGS: logs}


if __name__ == "__main__":
    for path, text in updated().items():
        path.write_text(text)
