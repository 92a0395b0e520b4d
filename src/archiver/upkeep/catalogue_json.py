"""Archives as JSON, for commands and for HTTP."""

from archiver.model import Archive
from archiver.upkeep.catalogue import Entry


def render_name(archive: Archive) -> dict[str, object]:
    """Return all that names an archive."""
    return {
        "task": archive.task_id,
        "source": archive.source,
        "repo": archive.repo,
        "node": archive.node,
        "subdir": archive.subdir,
        "suffix": archive.suffix,
        "submodules": archive.submodules,
        "lfs": archive.lfs,
    }


def render_entry(entry: Entry) -> dict[str, object]:
    """Return a stored archive. Unknown values are None."""
    manifest = entry.manifest
    return {
        **render_name(entry.archive),
        "size": manifest.size_bytes,
        "sha256": manifest.sha256,
        "created": manifest.created_at.isoformat(),
        "last_use": entry.last_use and entry.last_use.isoformat(),
        "supersedes": manifest.supersedes,
    }
