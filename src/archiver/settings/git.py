"""Whether the git program that workers need for the configured sources is there."""

from archiver.settings.section import SettingsError
from archiver.settings.tree import Settings
from archiver.sources.git.program import (
    GitProgram,
    UnsupportedGit,
    find_git,
    require_supported_version,
)


def serves_git(settings: Settings) -> bool:
    """Return whether a worker with these settings makes archives of a git host."""
    return any(source.kind == "git" for source in settings.served_sources.values())


def find_supported_git() -> GitProgram:
    """Return the git program. Blocks for some milliseconds. Raises SettingsError."""
    try:
        git = find_git()
        require_supported_version(git)
    except UnsupportedGit as exc:
        raise SettingsError(f"sources of kind git: {exc}") from exc
    return git


def require_git(settings: Settings) -> None:
    """Raise SettingsError if a worker needs git, and it is absent or too old."""
    if serves_git(settings):
        find_supported_git()
