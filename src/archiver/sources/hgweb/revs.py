"""Resolves revs on hgweb."""

import re
from urllib.parse import quote

import msgspec

from archiver.errors import InvalidRequest
from archiver.model import Node, parse_node
from archiver.names import display_rev
from archiver.sources.hgweb.client import HgwebClient, InexpressibleRev
from archiver.sources.lookup_metrics import counted_lookup
from archiver.sources.templates import quote_path

REV_ALLOWED = "tip, a branch, tag or bookmark, or the first 12 to 40 hex digits of a node"

NODE_DIGITS = 40
"""Mercurial has no nodes of 64 digits."""

LOG_MAX_BYTES = 1 << 20
"""Size of one log entry, which includes the whole description of the changeset."""

_NULL_NODES = frozenset({Node("0" * NODE_DIGITS), Node("f" * NODE_DIGITS)})
"""The parent of the first changeset and the working directory. Every repository has both."""

_SERVER_SPECIFIC_REVS = frozenset({"", ".", "null", "tip~"})
"""``.`` is the changeset that the server has checked out, even if it is secret."""

_LOCAL_NUMBER = re.compile(r"-?[0-9]{1,11}")
"""Numbers changesets in the order in which this server received them."""

_FOUND = re.compile(rb"1 ([0-9a-f]{40})\n")
_AMBIGUOUS = b"ambiguous identifier\n"
_SLASH = "%2F"


class _LogEntry(msgspec.Struct):
    """The part of a ``json-log/{rev}`` page that is read."""

    node: str


class RevLookup:
    """Implements the lookups of ``Source``."""

    def __init__(self, client: HgwebClient) -> None:
        self._client = client
        self._failures = client.failures

    def check_rev(self, rev: str) -> None:
        if rev in _SERVER_SPECIFIC_REVS or _LOCAL_NUMBER.fullmatch(rev):
            raise InvalidRequest(
                f"rev {display_rev(rev)!r} differs between servers: "
                "request the changeset by its node",
                parameter="rev",
                allowed=REV_ALLOWED,
            )

    async def resolve(self, repo: str, rev: str) -> Node:
        self.check_rev(rev)
        with counted_lookup(self._client.config.name):
            try:
                reply = await self._client.query(
                    repo,
                    f"?cmd=lookup&key={quote_path(rev)}",
                    on_crash=self._failures.inexpressible(rev),
                )
            except InexpressibleRev:
                return await self._resolve_by_log(repo, rev)
            return self._node_in(reply, repo, rev)

    def _node_in(self, reply: bytes, repo: str, rev: str) -> Node:
        found = _FOUND.fullmatch(reply)
        if found and (node := Node(found[1].decode())) not in _NULL_NODES:
            return node
        if reply.endswith(_AMBIGUOUS):
            raise self._failures.ambiguous(repo, rev)
        if found or reply.startswith(b"0 "):
            raise self._failures.unknown_rev(repo, rev)
        raise self._failures.malformed()

    async def _resolve_by_log(self, repo: str, rev: str) -> Node:
        """Return the node of a name beyond ASCII, which older hgwebs accept only in a path.

        Such an hgweb decodes the path, and then decodes ``%2F`` to a slash. In a path with a colon,
        it ignores the part before the colon. No name has a colon.
        """
        if ":" in rev:
            raise self._failures.unknown_rev(repo, rev)
        inexpressible = self._failures.inexpressible(rev)
        if inexpressible and _SLASH in rev:
            raise inexpressible
        path = quote(rev.replace("/", _SLASH), safe="")
        page = await self._client.query(
            repo,
            f"/json-log/{path}?revcount=1",
            on_crash=inexpressible,
            on_missing=self._failures.unknown_rev(repo, rev),
            max_bytes=LOG_MAX_BYTES,
        )
        try:
            node = parse_node(msgspec.json.decode(page, type=_LogEntry).node)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            node = None
        if node is None or len(node) != NODE_DIGITS or node in _NULL_NODES:
            raise self._failures.malformed()
        return node

    async def has_node(self, repo: str, node: Node) -> bool:
        if len(node) != NODE_DIGITS:
            return False
        with counted_lookup(self._client.config.name):
            reply = await self._client.query(repo, f"?cmd=known&nodes={node}")
            if reply not in {b"0", b"1"}:
                raise self._failures.malformed()
            return reply == b"1" and node not in _NULL_NODES
