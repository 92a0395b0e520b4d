"""What several commands share: options, and the exit code of a failure that may pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from archiver.client.failures import RetryLater
from archiver.errors import ArchiverError

DEFAULT_SERVER = "http://127.0.0.1:8010"

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with the settings.  [default: $ARCHIVER_CONFIG, else ./archiver.toml]",
)

# Not ARCHIVER_SERVER: that variable holds the settings' whole section "server".
server_option = click.option(
    "--server",
    envvar="ARCHIVER_URL",
    default=DEFAULT_SERVER,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="URL of Archiver.",
)

servers_option = click.option(
    "--server",
    "servers",
    envvar="ARCHIVER_URL",
    default=(DEFAULT_SERVER,),
    multiple=True,
    metavar="URL",
    show_default=True,
    show_envvar=True,
    help="URL of Archiver. Repeat it: the next one is asked if one does not respond.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


@contextmanager
def retry_later() -> Iterator[None]:
    """Raise RetryLater for an ArchiverError in the block."""
    try:
        yield
    except ArchiverError as exc:
        raise RetryLater(f"{exc.code}: {exc.message}") from exc
