"""The URLs of a commit's submodules, from its ``.gitmodules``.

Format: https://git-scm.com/docs/gitmodules. Git itself parses the file, but none of it is trusted.
"""

import re
from collections.abc import Mapping

from archiver.errors import BadGitmodules
from archiver.git_objects import CommitRecord
from archiver.sources.git.child import GitFailed
from archiver.sources.git.commit import read_file
from archiver.sources.git.mirror import Mirror

NAME = b".gitmodules"

MAX_BYTES = 1 << 20
"""Ten thousand submodules. Git's own limit is the memory."""

OUTPUT_MAX_BYTES = 8 << 20

_KEY = re.compile(r"submodule\.(.+)\.(path|url)", re.DOTALL)


async def read_submodule_urls(mirror: Mirror, record: CommitRecord) -> Mapping[str, str]:
    """Return the URL for each path. Later entries win, as in git.

    Raises BadGitmodules if the file is malformed or too long, MirrorFailed, or GitFailed.
    """
    try:
        content = await read_file(mirror, record, NAME, MAX_BYTES)
    except GitFailed as exc:
        if not exc.reached_limit:
            raise
        raise BadGitmodules(f"the .gitmodules has more than {MAX_BYTES:,} bytes") from exc
    if not content:
        return {}
    # Without the option, git reads any file of this machine that the content includes.
    command = ("config", "--file", "-", "--no-includes", "--null", "--list")
    try:
        output = await mirror.git.run(
            *command, stdin=content, max_output_bytes=OUTPUT_MAX_BYTES, may_fail=True
        )
    except GitFailed as exc:
        raise BadGitmodules("git cannot parse the .gitmodules of the commit") from exc
    return _urls(output.decode(errors="replace"))


def _urls(listed: str) -> Mapping[str, str]:
    """Return the URL for each path in the output of ``git config --list --null``."""
    sections: dict[str, dict[str, str]] = {}
    for line in listed.split("\0"):
        key, _, value = line.partition("\n")
        if match := _KEY.fullmatch(key):
            name, variable = match.groups()
            if not _is_odd(name, value):
                sections.setdefault(name, {})[variable] = value
    return {
        each["path"].rstrip("/"): each["url"]
        for each in sections.values()
        if "path" in each and "url" in each
    }


def _is_odd(name: str, value: str) -> bool:
    """Return whether git ignores such a setting, because it could be taken for an option or a path.

    See ``submodule-config.c`` of git.
    """
    return ".." in re.split(r"[/\\]", name) or value.startswith("-")
