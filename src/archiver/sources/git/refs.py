"""Resolves revs on git hosts."""

import re

from archiver.errors import InvalidRequest, SourceRefused
from archiver.model import Node, parse_node
from archiver.names import display_rev
from archiver.sources.git.client import GitClient
from archiver.sources.git.ref_listing import Ref, scan_refs
from archiver.sources.lookup_metrics import counted_lookup

REV_ALLOWED = "a branch, a tag, a full ref name, HEAD, or a commit id or its first digits"

HEAD = "HEAD"
TAGS = "refs/tags/"
BRANCHES = "refs/heads/"

SHOWN = (HEAD, TAGS, BRANCHES)
"""Refs whose commits count as the repository's own. Hosts also have refs, such as
``refs/pull/1/head``, of commits that strangers propose."""

_DIGITS = re.compile(r"[0-9a-fA-F]{4,63}")

_NOT_IN_REFS = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_NOT_AT_START = ("-", ".", "/")
_NOT_AT_END = (".", "/")


class GitRefs:
    """Implements the lookups of ``Source``."""

    def __init__(self, client: GitClient) -> None:
        self._client = client
        self._failures = client.failures

    def check_rev(self, rev: str) -> None:
        """Refuse all revs that cannot be the name of a ref (``git help check-ref-format``)."""
        if (
            rev in {"", "@"}
            or _NOT_IN_REFS.search(rev)
            or rev.startswith(_NOT_AT_START)
            or rev.endswith(_NOT_AT_END)
        ):
            raise InvalidRequest(
                f"rev {display_rev(rev)!r} cannot be the name of a branch or a tag",
                parameter="rev",
                allowed=REV_ALLOWED,
            )

    async def resolve(self, repo: str, rev: str) -> Node:
        self.check_rev(rev)
        with counted_lookup(self._client.config.name):
            if (node := parse_node(rev)) and await self._has_node(repo, node):
                return node
            if found := await self._find_name(repo, rev):
                return found
            if _DIGITS.fullmatch(rev):
                return await self._find_digits(repo, rev)
            raise self._failures.unknown_rev(repo, rev)

    async def _find_name(self, repo: str, rev: str) -> Node | None:
        """Return the node of the first ref that *rev* may name, in the order of git."""
        full = (rev,) if rev == HEAD or rev.startswith("refs/") else ()
        names = (*full, f"{TAGS}{rev}", f"{BRANCHES}{rev}")
        found: dict[str, Node] = {}

        def take(ref: Ref) -> bool:
            if ref.name in names:
                found[ref.name] = ref.node
            return names[0] in found

        is_whole = await scan_refs(self._client, repo, prefixes=names, take=take)
        if not is_whole:
            raise self._failures.too_many_refs(repo)
        return next((found[name] for name in names if name in found), None)

    async def _find_digits(self, repo: str, digits: str) -> Node:
        """Return the node of a branch or a tag that begins with *digits*."""
        nodes: set[Node] = set()

        def take(ref: Ref) -> bool:
            if ref.node.startswith(digits.lower()):
                nodes.add(ref.node)
            return len(nodes) > 1

        is_whole = await scan_refs(self._client, repo, prefixes=(TAGS, BRANCHES), take=take)
        if len(nodes) > 1:
            raise self._failures.ambiguous(repo, digits)
        if not is_whole:
            raise self._failures.too_many_refs(repo)
        if not nodes:
            raise self._failures.unknown_digits(repo, digits)
        return nodes.pop()

    async def has_node(self, repo: str, node: Node) -> bool:
        """Return whether a ref shows *node*, if the settings demand it.

        Otherwise every node counts as known, because hosts answer that question only by sending
        the node. The worker then finds out.
        """
        with counted_lookup(self._client.config.name):
            return await self._has_node(repo, node)

    async def _has_node(self, repo: str, node: Node) -> bool:
        capabilities = await self._client.capabilities(repo)
        if len(node) != capabilities.digits:
            return False
        return not self._client.config.git.reachable or await self._is_shown(repo, node)

    async def _is_shown(self, repo: str, node: Node) -> bool:
        is_shown = False

        def take(ref: Ref) -> bool:
            nonlocal is_shown
            is_shown = ref.node == node
            return is_shown

        is_whole = await scan_refs(self._client, repo, prefixes=SHOWN, take=take)
        if not is_whole:
            raise SourceRefused(
                f"{self._client.config.name} lists too many refs in {repo} to search all of them "
                f"for {node} (sources.{self._client.config.name}.reachable)"
            )
        return is_shown
