"""``archiver mirrors``: list and drop this machine's mirrors of git repositories.

The LFS files of repositories are listed and dropped with them.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from archiver.cli.command_settings import load_settings
from archiver.cli.options import config_option, json_option, quiet_option
from archiver.client.failures import CommandFailed, InvalidUsage
from archiver.client.text import printable
from archiver.settings import Settings
from archiver.sources.git.lfs.cache_folder import LFS_FOLDER, LfsFolder, LfsStatus
from archiver.sources.git.mirror_folder import MirrorFolder, MirrorStatus
from archiver.wiring.adapters import mirror_dir


@click.group("mirrors", invoke_without_command=True)
@quiet_option
@json_option
@config_option
@click.pass_context
def command(context: click.Context, *, quiet: bool, as_json: bool, config: Path | None) -> None:
    """List the mirrors of git repositories on this machine, or drop one.

    A mirror is a worker's local copy of a repository, and the files of Git LFS belong to it. Both
    are caches: a worker that misses them fetches them again.
    """
    if context.invoked_subcommand:
        return
    settings = load_settings(config)
    folder = MirrorFolder(mirror_dir(settings))
    statuses = sorted(folder.statuses(), key=lambda status: status.last_used, reverse=True)
    lfs = LfsFolder(folder.path / LFS_FOLDER).statuses()[::-1]
    if as_json:
        click.echo(json.dumps(_to_json(statuses, folder, settings) | _lfs_to_json(lfs, settings)))
    else:
        if statuses:
            Console(highlight=False).print(format_table(statuses))
        if lfs:
            Console(highlight=False).print(format_lfs_table(lfs))
        if not quiet:
            click.echo(_format_total(statuses, folder, settings), err=True)
            if lfs:
                click.echo(_format_lfs_total(lfs, settings), err=True)


@command.command("drop")
@click.argument("name", metavar="SOURCE/REPO")
@quiet_option
@json_option
@config_option
def drop(*, name: str, quiet: bool, as_json: bool, config: Path | None) -> None:
    """Drop the mirror and the LFS files of a repository, so that the next build fetches them again.

    Safe to run while workers use them: a mirror stays until their builds have ended.

    \b
    Exit codes:
      0  dropped
      1  there is neither such a mirror nor an LFS file of the repository
      2  wrong usage
    """  # noqa: D301 - click keeps the lines after \b
    source, slash, repo = name.partition("/")
    if not (source and slash and repo):
        raise InvalidUsage(f"{name} is not a source and a repository: use SOURCE/REPO")
    folder = MirrorFolder(mirror_dir(load_settings(config)))
    removed, in_use = folder.drop(source, repo)
    lfs_files = LfsFolder(folder.path / LFS_FOLDER).drop(source, repo)
    if not removed and not in_use and not lfs_files:
        raise CommandFailed(
            f"there is no mirror of {name} in {folder.path.absolute()}",
            hint="`archiver mirrors` lists them.",
        )
    if as_json:
        dropped = {"source": source, "repo": repo, "in_use": bool(in_use), "lfs_files": lfs_files}
        click.echo(json.dumps(dropped))
    elif not quiet:
        what = "mirror" if removed or in_use else "LFS files"
        note = "; it is in use, and is removed after that" if in_use else ""
        click.echo(printable(f"dropped the {what} of {name}{note}"), err=True)


def format_table(statuses: Sequence[MirrorStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("source", "repo"):
        table.add_column(name, overflow="fold")
    for name in ("bytes", "packs"):
        table.add_column(name, justify="right")
    table.add_column("last use")
    for status in statuses:
        identity = status.identity
        table.add_row(
            escape(printable(identity.source)) if identity else "?",
            escape(printable(identity.repo)) if identity else "damaged",
            f"{status.size.size_bytes:,}",
            f"{status.size.packs:,}",
            f"{status.last_used:%Y-%m-%d %H:%M:%S}" + ("" if status.current else ", replaced"),
        )
    return table


def format_lfs_table(statuses: Sequence[LfsStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("source", "repo"):
        table.add_column(name, overflow="fold")
    for name in ("LFS bytes", "files"):
        table.add_column(name, justify="right")
    table.add_column("last use")
    for status in statuses:
        owner = status.owner
        table.add_row(
            escape(printable(owner.source)) if owner else "?",
            escape(printable(owner.repo)) if owner else "damaged",
            f"{status.size_bytes:,}",
            f"{status.files:,}",
            f"{status.last_used:%Y-%m-%d %H:%M:%S}",
        )
    return table


def _total(statuses: Sequence[MirrorStatus]) -> int:
    return sum(status.size.size_bytes for status in statuses)


def _format_total(
    statuses: Sequence[MirrorStatus], folder: MirrorFolder, settings: Settings
) -> str:
    if not folder.path.is_dir():
        return printable(f"0 mirrors: the folder {folder.path.absolute()} does not exist")
    count = "1 mirror" if len(statuses) == 1 else f"{len(statuses):,} mirrors"
    used = f"{_total(statuses):,} of {settings.worker.mirror_max_bytes:,} bytes"
    return printable(f"{count}, {used}, in {folder.path.absolute()}")


def _format_lfs_total(statuses: Sequence[LfsStatus], settings: Settings) -> str:
    files = sum(status.files for status in statuses)
    count = "1 LFS file" if files == 1 else f"{files:,} LFS files"
    size_bytes = sum(status.size_bytes for status in statuses)
    return f"{count}, {size_bytes:,} of {settings.worker.lfs_max_bytes:,} bytes"


def _lfs_to_json(statuses: Sequence[LfsStatus], settings: Settings) -> dict[str, object]:
    return {
        "lfs_size_bytes": sum(status.size_bytes for status in statuses),
        "lfs_max_bytes": settings.worker.lfs_max_bytes,
        "lfs": [
            {
                "source": status.owner.source if status.owner else None,
                "repo": status.owner.repo if status.owner else None,
                "size_bytes": status.size_bytes,
                "files": status.files,
                "last_used": status.last_used.isoformat(timespec="seconds"),
            }
            for status in statuses
        ],
    }


def _to_json(
    statuses: Sequence[MirrorStatus], folder: MirrorFolder, settings: Settings
) -> dict[str, object]:
    return {
        "folder": str(folder.path.absolute()),
        "size_bytes": _total(statuses),
        "max_bytes": settings.worker.mirror_max_bytes,
        "mirrors": [
            {
                "source": status.identity.source if status.identity else None,
                "repo": status.identity.repo if status.identity else None,
                "digits": status.identity.digits if status.identity else None,
                "size_bytes": status.size.size_bytes,
                "packs": status.size.packs,
                "last_used": status.last_used.isoformat(timespec="seconds"),
                "current": status.current,
            }
            for status in statuses
        ],
    }
