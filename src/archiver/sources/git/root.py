"""The root directory of archives of a git host."""

import re

from archiver.model import Archive

SHORT_DIGITS = 12

_UNUSUAL = re.compile(r"[^A-Za-z0-9._+-]")


def root_directory(template: str, archive: Archive) -> str:
    """Return *template* with the names of *archive*. Unusual characters become hyphens."""
    return template.format_map(
        {
            "basename": _UNUSUAL.sub("-", archive.basename),
            "repo": _UNUSUAL.sub("-", archive.repo),
            "node": archive.node,
            "node12": archive.node[:SHORT_DIGITS],
        }
    )
