"""The command line. Results go to standard output, messages to standard error."""

import signal
from importlib import import_module

import click

from archiver import __version__
from archiver.client.failures import CommandFailed

COMMANDS = (
    *("serve", "web", "worker", "get", "verify", "status", "list", "tasks", "audit", "fsck", "gc"),
    *("fill", "index", "purge", "pins", "mirrors", "engine", "config", "token", "demo"),
)


class LazyGroup(click.Group):
    """Imports the module of a command on its first use: `get` starts without a web server's."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [*COMMANDS]  # the module of the command `list` may have that name here

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"archiver.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. Report an OSError in one sentence, and exit with 130 on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            raise
        except OSError as exc:
            name = f"{exc.filename}: " if exc.filename else ""
            raise CommandFailed(f"{name}{exc.strerror or 'system error'}") from exc


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="archiver")
def main() -> None:
    """Store the archives of version-control hosts in S3, and locate them."""
