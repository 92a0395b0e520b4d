"""``archiver token``: create tokens for clients."""

import json
from datetime import UTC, date, datetime

import click

from archiver.access.tokens import create_token, hash_token
from archiver.cli.options import json_option, quiet_option
from archiver.client.failures import InvalidUsage
from archiver.settings import is_setting_name

SCOPES = ("read", "create", "admin")


@click.group("token")
def command() -> None:
    """Create tokens for clients."""


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("read", "create"),
    show_default=True,
    help="What its bearers may do; each scope includes those before it. May be repeated.",
)
@click.option("--source", "sources", multiple=True, help="Pattern of sources. May be repeated.")
@click.option("--repo", "repos", multiple=True, help="Pattern of repos. May be repeated.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="Date at which it expires.")
@quiet_option
@json_option
def create(
    *,
    name: str,
    scopes: tuple[str, ...],
    sources: tuple[str, ...],
    repos: tuple[str, ...],
    expires: datetime | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Create a token for NAME.

    Prints the token to standard output, once: it is not stored. Prints the settings that make
    Archiver accept it to standard error. Running web processes read them within seconds.
    """
    if expires and expires.replace(tzinfo=UTC) <= datetime.now(UTC):
        raise InvalidUsage("--expires is in the past")
    if not is_setting_name(name):
        raise InvalidUsage(f"{name!r} is not a valid name: use at most 63 of a-z, 0-9, _ and -")
    token = create_token()
    lines = [
        f"[tokens.{name}]",
        f"scopes = {json.dumps(scopes)}",
        *([f"sources = {json.dumps(sources)}"] if sources else []),
        *([f"repos = {json.dumps(repos)}"] if repos else []),
        *([f"expires = {date.isoformat(expires.date())}"] if expires else []),
        f"hash = {json.dumps(hash_token(token))}",  # last: half of the table is no valid table
    ]
    if as_json:
        click.echo(json.dumps({"name": name, "token": token, "settings": "\n".join(lines)}))
        return
    if not quiet:
        click.echo("# Add this to the settings of the web processes:\n", err=True)
    click.echo("\n".join(lines), err=True)
    if not quiet:
        click.echo("\n# The token, which is not stored anywhere:", err=True)
    click.echo(token)
