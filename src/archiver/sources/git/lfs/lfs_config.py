"""The address of Git LFS in a commit's ``.lfsconfig``, which its authors control.

https://github.com/git-lfs/git-lfs/blob/main/docs/man/git-lfs-config.adoc#lfsconfig
"""

from archiver.model import Node
from archiver.sources.git.child import GitFailed
from archiver.sources.git.mirror import Mirror
from archiver.telemetry import log

CONFIG_MAX_BYTES = 64 << 10
"""Larger files are ignored. Real ones have some 100 bytes."""

_KEYS = ("lfs.url", "remote.origin.lfsurl")
"""The keys that git-lfs reads, the first one that is set."""


async def read_lfs_url(mirror: Mirror, node: Node) -> str:
    """Return the address in the commit's ``.lfsconfig``; empty if it has none.

    Nothing about it is checked. Raises GitFailed if the commit cannot be read.
    """
    question = b"%s:.lfsconfig\n" % node.encode()
    answer = await mirror.git.run(
        "cat-file", "--batch-check=%(objectname) %(objecttype) %(objectsize)", stdin=question
    )
    match answer.split():
        case [name, b"blob", size] if int(size) <= CONFIG_MAX_BYTES:
            text = await mirror.git.run("cat-file", "blob", name.decode())
            return await _parse(mirror, text)
        case _:
            return ""


async def _parse(mirror: Mirror, text: bytes) -> str:
    """Return the address in *text*. Git would follow ``include.path`` to files of this machine."""
    command = ("config", "--file", "-", "--no-includes", "-z", "--list")
    try:
        output = await mirror.git.run(*command, stdin=text, may_fail=True)
    except GitFailed:
        log.debug("lfs.config_ignored", reason="malformed")
        return ""
    values = dict(line.partition("\n")[::2] for line in output.decode(errors="replace").split("\0"))
    return next((values[key] for key in _KEYS if key in values), "")
