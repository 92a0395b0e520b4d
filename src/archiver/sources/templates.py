"""Fills the templates of a host's addresses."""

from collections.abc import Mapping
from urllib.parse import quote


def fill(template: str, values: Mapping[str, str]) -> str:
    """Return *template* with each ``{name}`` replaced by the quoted value of that name."""
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote_path(value))  # quoting escapes braces
    return template


def quote_path(path: str) -> str:
    return "/".join(quote(segment, safe="") for segment in path.split("/"))
