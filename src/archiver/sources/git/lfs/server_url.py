"""The address of a repository's LFS server.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/server-discovery.md.
"""

import re

from yarl import URL

from archiver.telemetry import log

_OF_REPO = re.compile(r"(?:/info/lfs)?/?")
"""What may follow the repository's path: longer ones may be those of other repositories."""


def server_url(repo_url: str, lfs_url: str = "") -> str:
    """Return the address of the LFS server of the repository at *repo_url*.

    That is *lfs_url*, from a commit's ``.lfsconfig``, if it belongs to the repository itself. The
    host would show the files of another repository to the token, and a client that may read this
    one may not be allowed to read those.
    """
    repo_url = repo_url.rstrip("/").removesuffix(".git")
    if lfs_url and _is_of_repo(lfs_url, repo_url):
        return lfs_url.rstrip("/")
    if lfs_url:
        log.debug("lfs.config_ignored", reason="address")
    return f"{repo_url}.git/info/lfs"


def _is_of_repo(lfs_url: str, repo_url: str) -> bool:
    """Return whether *lfs_url* is that of the repository at *repo_url*, or of its LFS server."""
    try:
        url, home = URL(lfs_url, encoded=True), URL(repo_url, encoded=True)
        same_host = (url.scheme, url.raw_host, url.port) == (home.scheme, home.raw_host, home.port)
    except ValueError:
        return False
    if not same_host or url.user or url.password or url.raw_query_string or url.raw_fragment:
        return False
    path = url.raw_path
    for own in (f"{home.raw_path}.git", home.raw_path):
        if path.startswith(own) and _OF_REPO.fullmatch(path.removeprefix(own)):
            return True
    return False
