"""The URLs of the service in responses. The route table in ``app.py`` has the same paths."""

from urllib.parse import quote, urlencode

from archiver.model import Archive, ArchiveRequest
from archiver.web.web_config import WebConfig


def repo_path(archive: ArchiveRequest | Archive) -> str:
    """Return the path of a repo's archives, for requests with ``?rev=``."""
    return f"/archiver/{archive.source}/{quote(archive.repo)}"


def archive_path(archive: ArchiveRequest | Archive, rev: str) -> str:
    """Return the path of an archive at *rev*, without its query."""
    return f"{repo_path(archive)}/{quote(rev, safe='')}"


def canonical_url(config: WebConfig, archive: Archive) -> str:
    """Return the URL of an archive by its node, which always means the same archive."""
    query = {"suffix": archive.suffix} | ({"subdir": archive.subdir} if archive.subdir else {})
    path = archive_path(archive, archive.node)
    return f"{config.public_url}{path}?{urlencode(query, safe='/')}"


def status_url(config: WebConfig, archive: Archive) -> str:
    return f"{config.public_url}/archiver/status/{archive.task_id}"
