"""Starts everything that the demo needs, plays the scenario and stops everything."""

import asyncio
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from archiver.client.api_client import open_client
from archiver.client.deadline import Deadline
from archiver.client.failures import CommandFailed, Interrupted, TimedOut
from archiver.demo.repository import REPO, SUBDIR, DemoRepository, mercurial
from archiver.demo.scenario import Scenario
from archiver.demo.screen import Screen
from archiver.embedded.data_folder import open_data_folder
from archiver.embedded.local_ports import LOOPBACK, find_free_port, is_port_free
from archiver.embedded.program import CannotServe
from archiver.embedded.stack import StackOptions, create_supervisor, run_until_stopped
from archiver.embedded.supervisor import Supervisor

DEFAULT_PORT = 8010
TIMEOUT_S = 60.0


class Demo:
    """One run of the demo, with all its files in *folder*."""

    def __init__(self, *, folder: Path, listen: str | None, once: bool) -> None:
        self._folder = folder
        self._listen, self._address_note = choose_address(listen)
        self._once = once
        self._screen = Screen()
        self._repository = DemoRepository(folder=folder, port=find_free_port())
        self._node = ""
        self._finished = False

    def play(self) -> None:
        """Run the demo. Raises CannotServe, or CommandFailed after a failed check or a signal."""
        self._screen.title("Archiver, from scratch, on this machine")
        self._screen.line(f"http://{self._listen}{self._address_note}")
        self._screen.line()
        with self._screen.timed(f"A Mercurial repository, {REPO}"):
            self._node = self._repository.create()
        try:
            with open_data_folder(self._folder / "data") as data:
                asyncio.run(self._serve(create_supervisor(self._stack_options(), data)))
        except (CannotServe, CommandFailed):
            self._screen.log_tails(self._folder / "data" / "log")
            raise
        if not self._finished:
            raise Interrupted("interrupted")
        if self._screen.failures:
            raise CommandFailed(f"failed checks: {'; '.join(self._screen.failures)}")

    def _stack_options(self) -> StackOptions:
        config = self._folder / "archiver.toml"
        config.write_text(
            f'[server]\nlisten = "{self._listen}"\n\n'
            f'[sources.hgmo]\nurl_template = "{self._repository.url_template}"\n'
        )
        return StackOptions(
            listen=self._listen,
            workers=1,
            worker_grace_s=1,
            embed_engine=True,
            embed_regions=True,
            servers=(self._repository.hgweb_server(),),
            environment={"ARCHIVER_CONFIG": str(config)},
            quiet=True,
        )

    async def _serve(self, supervisor: Supervisor) -> None:
        with ExitStack() as starting:
            starting.enter_context(
                self._screen.timed("hgweb, NATS, two S3 regions, a worker, a web process")
            )

            async def play() -> None:
                starting.close()
                await self._play_scenario()

            await run_until_stopped(supervisor, play)

    async def _play_scenario(self) -> None:
        with open_client(f"http://{self._listen}") as client:
            scenario = Scenario(
                client=client,
                screen=self._screen,
                repository=self._repository,
                node=self._node,
                folder=self._folder,
                deadline=Deadline(TIMEOUT_S, TimedOut("the demo took too long")),
            )
            await scenario.play()
        self._finished = True
        if not self._once:
            self._print_suggestions(scenario.archive_url())
            await asyncio.Event().wait()

    def _print_suggestions(self, url: str) -> None:
        hg = shlex.join([*mercurial(), "-R", str(self._repository.path)])
        readme = self._repository.path / "README"
        screen = self._screen
        screen.title("Archiver keeps running. In another terminal, try:")
        screen.command(f"curl -i '{url}'")
        screen.command(f"curl -sL '{url}' | tar tz | head")
        screen.command(
            f"{shlex.quote(str(Path(sys.executable).parent / 'archiver'))} get hgmo {REPO} default"
            f" --subdir {SUBDIR} --server http://{self._listen}"
        )
        screen.line("   To move the branch (`default` is another archive within a minute):")
        screen.command(f"echo more >> {readme}; HGPLAIN=1 {hg} commit -m More -u you")
        screen.line()
        screen.line("Ctrl-C stops the demo and deletes all its files.", "bold")


def choose_address(listen: str | None) -> tuple[str, str]:
    """Return the address to serve at, and a note if it is neither *listen* nor the default."""
    if listen or is_port_free(LOOPBACK, DEFAULT_PORT):
        return listen or f"{LOOPBACK}:{DEFAULT_PORT}", ""
    note = f", because another program uses port {DEFAULT_PORT}"
    return f"{LOOPBACK}:{find_free_port()}", note
