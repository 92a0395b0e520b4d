"""The command line. Data goes to standard output, everything else to standard error."""

import signal
from importlib import import_module

import click

from archiver import __version__
from archiver.cli.failures import CommandFailed

COMMANDS = ("serve", "web", "worker", "get", "status", "audit", "index", "engine", "config", "demo")


class Commands(click.Group):
    """Imports a command's module when it is asked for: `get` has no need of what `web` needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"archiver.cli.{cmd_name}").command
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. A disk that it cannot use is one sentence; Ctrl-C ends it with 130."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(128 + signal.SIGINT) from None
        except BrokenPipeError:
            raise
        except OSError as exc:
            name = f"{exc.filename}: " if exc.filename else ""
            raise CommandFailed(f"{name}{exc.strerror or 'the system refuses'}") from exc


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="archiver")
def main() -> None:
    """Keep the archives of a version-control host in S3, and say where they are."""
