"""Trees that no git would write, and trees that are larger than they look."""

from typing import NamedTuple

from tests.git_repositories import MAIN, GitRepository


class Item(NamedTuple):
    """An entry of a tree object, written as it is: ``mode`` are git's digits."""

    mode: bytes
    name: bytes
    object_id: str


def blob(repository: GitRepository, content: bytes) -> str:
    """Store a file's content, and return its id."""
    return repository.git("hash-object", "-w", "--stdin", stdin=content)


def tree(repository: GitRepository, *items: Item) -> str:
    """Store a tree with *items* in this order, whatever they are, and return its id."""
    content = b"".join(
        b"%s %s\0%s" % (mode, name, bytes.fromhex(object_id)) for mode, name, object_id in items
    )
    return repository.git(
        *("hash-object", "-t", "tree", "-w", "--stdin", "--literally"), stdin=content
    )


def commit_tree(repository: GitRepository, root: str, message: str = "Change") -> str:
    """Commit the tree *root* as the only one of the history, and return the node."""
    node = repository.git("commit-tree", root, stdin=message.encode())
    repository.git("update-ref", MAIN, node)
    return node


def commit_items(repository: GitRepository, *items: Item) -> str:
    """Commit a tree of *items*, and return the node."""
    return commit_tree(repository, tree(repository, *items))


def nested(repository: GitRepository, leaf: str, *, depth: int, width: int) -> str:
    """Return a tree that leads to *leaf* in ``width ** depth`` ways. It has *depth* objects."""
    names = [b"%06d" % number for number in range(width)]
    for _ in range(depth):
        leaf = tree(repository, *(Item(b"40000", name, leaf) for name in names))
    return leaf
