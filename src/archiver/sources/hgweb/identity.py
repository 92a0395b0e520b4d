"""Checks which changeset an archive of Mercurial was made from."""

import re

from archiver.errors import WrongNode
from archiver.model import Node

_NODE_LINE = re.compile(rb"^node: ([0-9a-f]{40})$", re.MULTILINE)


class HgArchivalCheck:
    """Implements ``IdentityCheck`` with ``.hg_archival.txt``.

    Mercurial writes this file first into an archive of a whole tree, unless its configuration
    (``ui.archivemeta``) says otherwise. The node is in its second line.
    """

    member = b".hg_archival.txt"

    def __init__(self, node: Node) -> None:
        self._node = node

    def check_content(self, content: bytes) -> None:
        line = _NODE_LINE.search(content)
        if not line or line[1].decode() != self._node:
            raise WrongNode("the archive is of another changeset than the requested one")
