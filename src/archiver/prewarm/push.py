"""A branch or a tag that names another changeset than before, as its host announces it."""

from dataclasses import dataclass
from enum import StrEnum

from archiver.model import Node


class RefKind(StrEnum):
    """Branches include bookmarks."""

    BRANCH = "branch"
    TAG = "tag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """A ref of a repo, and the changeset that it names from now on.

    ``name`` is that of a branch or a tag, without ``refs/heads/``.
    """

    repo: str
    kind: RefKind
    name: str
    node: Node
