"""The table of spans in docs/how-to/trace.md."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "trace.md"

ROW = re.compile(r"^\| `(archiver\.\w+)` \| (\w+) \| .*? \| (.*) \|$", re.MULTILINE)


def documented_spans() -> Mapping[str, tuple[str, frozenset[str]]]:
    """Return the kind and the attributes of each span."""
    rows = re.findall(
        r"^\| `(archiver\.\w+)` \| (\w+) \| .*? \| (.*) \|$", PAGE.read_text(), re.MULTILINE
    )
    return {name: (kind, frozenset(re.findall(r"`(.+?)`", cell))) for name, kind, cell in rows}
