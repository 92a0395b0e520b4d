"""An argument of a command that names a task, by its id or its status URL."""

from urllib.parse import unquote, urlsplit

from archiver.client.failures import InvalidUsage
from archiver.model import Archive, parse_task_id


def find_archive(task: str) -> Archive | None:
    """Return the archive of a task id or of a status URL; None if *task* is neither."""
    url = urlsplit(task)
    is_url = url.scheme in {"http", "https"}
    return parse_task_id(unquote(url.path.rpartition("/")[2]) if is_url else task)


def parse_task(task: str) -> Archive:
    """Return the archive of a task id or of a status URL. Raises InvalidUsage."""
    archive = find_archive(task)
    if archive is None:
        raise InvalidUsage(f"{task} is neither a task id nor a status URL")
    return archive
