"""``archiver demo``: everything, on loopback, in a temporary folder, from nothing to nothing."""

import asyncio
import os
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from archiver.cli.client import open_client
from archiver.cli.demo_play import Play
from archiver.cli.demo_repository import REPO, SUBDIR, Repository, mercurial
from archiver.cli.demo_screen import Screen
from archiver.cli.failures import CommandFailed, Interrupted, TookTooLong
from archiver.embedded.errors import CannotServe
from archiver.embedded.folder import LOOPBACK, free_port, is_free, open_folder
from archiver.embedded.stack import Plan, assemble, run
from archiver.embedded.supervisor import Supervisor
from archiver.telemetry import LogFormat, set_up_logging

USUAL_PORT = 8010


@click.command("demo")
@click.option("--once", is_flag=True, help="End after the show, with 0 if all of it came right.")
@click.option("--listen", help="Address and port. [default: 127.0.0.1:8010, or a free port]")
def command(*, once: bool, listen: str | None) -> None:
    """Show Archiver at work: a real Mercurial host, NATS, two S3 regions, and three requests.

    Needs no network and no configuration, and leaves nothing behind.
    """
    for name in [name for name in os.environ if name.startswith("ARCHIVER_")]:
        del os.environ[name]  # the demo has a configuration of its own
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(Interrupted.exit_code))  # every `with` tidies up
    set_up_logging(LogFormat.CONSOLE, level="error", process="demo")
    with tempfile.TemporaryDirectory(prefix="archiver-demo-") as folder:
        try:
            Demo(folder=Path(folder), listen=listen, once=once).run()
        except CannotServe as exc:
            raise CommandFailed(str(exc)) from exc
    click.echo("\nEverything has ended, and nothing is left behind.")


class Demo:
    """One demo, in *folder*."""

    def __init__(self, *, folder: Path, listen: str | None, once: bool) -> None:
        self._folder = folder
        self._listen, self._why_there = choose_address(listen)
        self._once = once
        self._screen = Screen()
        self._repository = Repository(folder=folder, port=free_port())
        self._node = ""
        self._played = False

    def run(self) -> None:
        """Show everything.

        Raises:
            CannotServe: The show could not begin.
            CommandFailed: Something did not come out right.
        """
        self._screen.title("Archiver, from nothing, on this machine")
        self._screen.line(f"http://{self._listen}{self._why_there}")
        self._screen.line()
        with self._screen.doing(f"A Mercurial repository, {REPO}"):
            self._node = self._repository.create()
        try:
            with open_folder(self._folder / "data") as data:
                asyncio.run(self._run(assemble(self._plan(), data)))
        except (CannotServe, CommandFailed):
            self._screen.tail(self._folder / "data" / "log")
            raise
        if not self._played:
            raise Interrupted("interrupted")
        if self._screen.failures:
            raise CommandFailed(f"not as it should be: {'; '.join(self._screen.failures)}")

    def _plan(self) -> Plan:
        config = self._folder / "archiver.toml"
        config.write_text(
            f'[server]\nlisten = "{self._listen}"\n\n'
            f'[sources.hgmo]\nurl_template = "{self._repository.url_template}"\n'
        )
        return Plan(
            listen=self._listen,
            workers=1,
            worker_grace_s=1,
            embed_engine=True,
            embed_regions=True,
            servers=(self._repository.hgweb(),),
            environment={"ARCHIVER_CONFIG": str(config)},
            quiet=True,
        )

    async def _run(self, supervisor: Supervisor) -> None:
        with ExitStack() as starting:
            starting.enter_context(
                self._screen.doing("hgweb, NATS, two S3 regions, a worker, a web process")
            )

            async def show() -> None:
                starting.close()
                await self._show()

            await run(supervisor, show)

    async def _show(self) -> None:
        async with open_client(f"http://{self._listen}") as client:
            play = Play(
                client=client,
                screen=self._screen,
                repository=self._repository,
                node=self._node,
                folder=self._folder,
            )
            try:
                await play.run()
            except TimeoutError as exc:
                raise TookTooLong("it took too long") from exc
        self._played = True
        if not self._once:
            self._invite(play.url())
            await asyncio.Event().wait()

    def _invite(self, url: str) -> None:
        """Print what to try by hand."""
        hg = shlex.join([*mercurial(), "-R", str(self._repository.path)])
        readme = self._repository.path / "README"
        screen = self._screen
        screen.title("It goes on serving. In another terminal:")
        screen.command(f"curl -i '{url}'")
        screen.command(f"curl -sL '{url}' | tar tz | head")
        screen.command(
            f"{shlex.quote(str(Path(sys.executable).parent / 'archiver'))} get hgmo {REPO} default"
            f" --subdir {SUBDIR} --server http://{self._listen}"
        )
        screen.line("   and, to move the branch (within a minute, `default` is another archive):")
        screen.command(f"echo more >> {readme}; HGPLAIN=1 {hg} commit -m More -u you")
        screen.line()
        screen.line("Ctrl-C ends it, and removes all of it.", "bold")


def choose_address(listen: str | None) -> tuple[str, str]:
    """Return where to serve, and why it is neither *listen* nor the usual port, if so."""
    if listen or is_free(LOOPBACK, USUAL_PORT):
        return listen or f"{LOOPBACK}:{USUAL_PORT}", ""
    return f"{LOOPBACK}:{free_port()}", f", because another program has port {USUAL_PORT}"
