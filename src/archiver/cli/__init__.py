"""The command line. Results go to standard output, messages to standard error."""

from __future__ import annotations

import signal
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

import click

from archiver import __version__
from archiver.cli.failure_report import AS_JSON, report_failure, report_usage
from archiver.cli.streams import repair_streams
from archiver.client.failures import CommandFailed, InvalidUsage

COMMANDS = (
    *("serve", "web", "worker", "get", "lock", "fetch", "verify", "status", "prewarm", "list"),
    *("tasks", "audit", "fsck", "gc", "fill", "index", "purge", "pins", "mirrors", "drain"),
    *("doctor", "engine", "config", "token", "demo", "completion"),
)

SERVER_EXTRA = "source-archiver[server]"


class LazyGroup(click.Group):
    """Imports the module of a command on its first use: `get` starts without a web server's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands whose modules are there: the client may be one file."""
        return [name for name in COMMANDS if find_spec(f"archiver.cli.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        try:
            command: click.Command = import_module(f"archiver.cli.{cmd_name}").command
        except ModuleNotFoundError as exc:
            return _uninstalled(cmd_name, str(exc.name))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command. An error names those with a similar name."""
        similar = get_close_matches(args[0], COMMANDS) if args[0] not in COMMANDS else ()
        if similar:
            ctx.fail(f"No such command '{args[0]}'. Did you mean {' or '.join(similar)}?")
        return super().resolve_command(ctx, args)

    def __call__(self, *args: object, **kwargs: object) -> object:
        repair_streams()
        return super().__call__(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Report an OSError in one sentence, and exit with 130 on Ctrl-C."""
        if "--json" in ctx.args:  # noted before click finds an error in the others
            ctx.meta[AS_JSON] = True
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            raise
        except click.UsageError as exc:
            report_usage(exc)
            raise
        except CommandFailed as exc:
            _fail(exc)
        except OSError as exc:
            name = f"{exc.filename}: " if exc.filename else ""
            _fail(CommandFailed(f"{name}{exc.strerror or 'system error'}"))


def _uninstalled(name: str, library: str) -> click.Command:
    """Return a command that says what to install."""

    def explain() -> None:
        missing = "other parts of Archiver" if library.startswith("archiver") else library
        raise InvalidUsage(f"`archiver {name}` needs {missing}", hint=f"Install {SERVER_EXTRA}.")

    return click.Command(
        name,
        help=f"Not installed: part of {SERVER_EXTRA}.",
        callback=explain,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


def _fail(failure: CommandFailed) -> NoReturn:
    report_failure(failure)
    raise SystemExit(failure.exit_code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="archiver")
def main() -> None:
    """Store the archives of version-control hosts in S3, and locate them."""
