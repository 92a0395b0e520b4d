"""The supervisor with real processes that die, hang or have children."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from archiver.embedded.program import CannotServe, Probe, Program, http_probe
from archiver.embedded.supervisor import Supervisor
from tests.parts.process import free_port, running, wait_until


def shell(script: str, *, name: str = "program", grace_s: float = 5) -> Program:
    return Program(name=name, command=("/bin/sh", "-c", script), grace_s=grace_s)


def alive(pid: int) -> bool:
    """Return whether a process runs. A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.02)


def read_pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() and path.read_text().endswith("\n") else 0


def test_a_killed_child_is_restarted() -> None:
    async def scenario() -> None:
        supervisor = Supervisor(stages=[[shell("exec sleep 100")]])
        async with supervisor.running():
            first = supervisor.pids["program"]
            os.kill(first, signal.SIGKILL)
            await until(lambda: supervisor.pids.get("program", first) != first)
            assert alive(supervisor.pids["program"])

    asyncio.run(scenario())


def test_a_program_that_rests_stays_away_and_others_are_restarted() -> None:
    drained = replace(shell("exit 10", name="drained"), rests_after=10)
    ended = replace(shell("sleep 0.01; exit 0", name="ended"), rests_after=10)

    async def scenario() -> None:
        async with Supervisor(stages=[[drained, ended]]).running():
            await until(lambda: "child.resting" in events())
            await until(lambda: events().count("child.restarted") > 1)

    def events() -> list[str]:
        return [line["event"] for line in logs]

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert {line["child"] for line in logs if line["event"] == "child.restarted"} == {"ended"}
    assert [line["child"] for line in logs if line["event"] == "child.resting"] == ["drained"]
    ends = {(line["child"], line["why"], line["log_level"]) for line in logs if "why" in line}
    assert {("drained", "drained", "info"), ("ended", "exited", "warning")} <= ends


@pytest.mark.parametrize(
    ("script", "why"), (("kill -KILL $$", "killed by SIGKILL"), ("sleep 0.01; exit 3", "exited"))
)
def test_the_log_says_how_a_child_ended_and_where_its_last_words_are(
    tmp_path: Path, script: str, why: str
) -> None:
    part = replace(shell(script), log=tmp_path / "part.log")

    async def scenario() -> None:
        async with Supervisor(stages=[[part]]).running():
            await until(lambda: any(line["event"] == "child.restarted" for line in logs))

    with capture_logs() as logs:
        asyncio.run(scenario())
    ended = next(line for line in logs if line["event"] == "child.ended")
    assert (ended["why"], ended["last_words"]) == (why, str(part.log))
    assert ended["log_level"] == "warning"


BROKEN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(503)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize(
    ("folder", "event"),
    (
        (None, "child.restarted"),
        pytest.param(Path("/proc"), "child.disk_full", marks=pytest.mark.thorough),
    ),
)
def test_a_broken_program_is_restarted_unless_its_disk_is_full(
    folder: Path | None, event: str
) -> None:
    port = free_port()
    program = Program(
        name="program",
        command=(sys.executable, "-c", BROKEN, str(port)),
        ready=http_probe("127.0.0.1", port, "/", expect=b"HTTP/1.0"),
        broken=http_probe("127.0.0.1", port, "/", expect=b" 503 "),
        check_interval_s=0.02,
        folder=folder,
    )

    async def scenario() -> None:
        async with Supervisor(stages=[[program]]).running():
            await until(lambda: any(line["event"] == event for line in logs))

    with capture_logs() as logs:
        asyncio.run(scenario())
    ended = [line["why"] for line in logs if line["event"] == "child.ended"]
    assert ended[0] == ("stopped" if folder else "could not do its work")


def test_nothing_a_child_started_outlives_the_run(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def scenario() -> int:
        script = f"sleep 100 & echo $! > {pid_file}; wait"
        async with Supervisor(stages=[[shell(script)]]).running():
            await until(lambda: read_pid(pid_file) > 0)
            assert alive(read_pid(pid_file))
        return read_pid(pid_file)

    grandchild = asyncio.run(scenario())
    wait_until(lambda: not alive(grandchild), what="the end of the grandchild", timeout_s=5)


def test_the_children_of_a_killed_child_end_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def scenario() -> None:
        script = f"sleep 100 & echo $! > {pid_file}; wait"
        supervisor = Supervisor(stages=[[shell(script)]])
        async with supervisor.running():
            await until(lambda: read_pid(pid_file) > 0)
            grandchild = read_pid(pid_file)
            os.kill(supervisor.pids["program"], signal.SIGKILL)
            await until(lambda: not alive(grandchild))

    asyncio.run(scenario())


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace_period() -> None:
    async def scenario() -> int:
        stubborn = shell("trap '' TERM; while :; do sleep 0.1; done", grace_s=0.3)
        supervisor = Supervisor(stages=[[stubborn]])
        async with supervisor.running():
            return supervisor.pids["program"]

    assert not alive(asyncio.run(scenario()))


def test_stages_stop_in_reverse_order(tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    def writer(name: str) -> Program:
        script = (
            f"trap 'sleep 0.2; echo {name} ends >> {journal}; exit' TERM; "
            f"echo {name} starts >> {journal}; while :; do sleep 0.05; done"
        )
        return shell(script, name=name)

    async def scenario() -> None:
        supervisor = Supervisor(stages=[[writer("first")], [writer("second")]])
        async with supervisor.running():
            await until(lambda: journal.exists() and len(journal.read_text().splitlines()) == 2)

    asyncio.run(scenario())
    ends = [line for line in journal.read_text().splitlines() if line.endswith("ends")]
    assert ends == ["second ends", "first ends"]


def test_a_stage_waits_for_the_previous_stage(tmp_path: Path) -> None:
    port = free_port()
    listen = (
        "import socket, time; time.sleep(0.3); s = socket.create_server(('127.0.0.1', "
        f"{port})); c, _ = s.accept(); c.sendall(b'hello\\n'); time.sleep(100)"
    )
    server = Program(
        name="server",
        command=(sys.executable, "-c", listen),
        ready=Probe(host="127.0.0.1", port=port, expect=b"hello"),
    )
    follower = shell(f"echo > {tmp_path / 'started'}; exec sleep 100", name="follower")

    async def scenario() -> None:
        supervisor = Supervisor(stages=[[server], [follower]])
        entering = supervisor.running()
        starting = asyncio.ensure_future(entering.__aenter__())
        await asyncio.sleep(0.2)
        assert "follower" not in supervisor.pids
        await starting
        assert "follower" in supervisor.pids
        await entering.__aexit__(None, None, None)

    asyncio.run(scenario())


def test_a_program_that_never_becomes_ready_stops_the_others() -> None:
    pids = []

    async def scenario() -> None:
        broken = Program(
            name="broken",
            command=("/bin/sh", "-c", "exit 3"),
            ready=Probe(host="127.0.0.1", port=free_port(), expect=b"hello"),
        )
        supervisor = Supervisor(stages=[[shell("exec sleep 100", name="sound")], [broken]])

        async def note() -> None:
            await until(lambda: "sound" in supervisor.pids)
            pids.append(supervisor.pids["sound"])

        noting = asyncio.create_task(note())
        try:
            async with supervisor.running():
                pass
        finally:
            await noting

    with pytest.raises(CannotServe, match="broken was started 3 times and never became ready"):
        asyncio.run(scenario())
    assert not alive(pids[0])


def test_a_missing_executable_is_named() -> None:
    async def scenario() -> None:
        program = Program(name="ghost", command=("/no/such/program",))
        async with Supervisor(stages=[[program]]).running():
            pass

    with pytest.raises(CannotServe, match="ghost cannot be started: No such file"):
        asyncio.run(scenario())


def test_a_child_whose_folder_is_deleted_is_restarted(tmp_path: Path) -> None:
    store = tmp_path / "store"
    program = Program(
        name="program",
        command=("/bin/sh", "-c", "exec sleep 100"),
        prepare=lambda: store.mkdir(exist_ok=True),
        folder=store,
    )

    async def scenario() -> None:
        supervisor = Supervisor(stages=[[program]])
        async with supervisor.running():
            first = supervisor.pids["program"]
            store.rmdir()
            await until(lambda: supervisor.pids.get("program", first) != first)
            assert store.is_dir()

    asyncio.run(scenario())


def test_an_exception_of_the_block_is_raised_unchanged() -> None:
    async def scenario() -> None:
        async with Supervisor(stages=[[shell("exec sleep 100")]]).running():
            raise LookupError("of the block")

    with pytest.raises(LookupError, match="of the block"):
        asyncio.run(scenario())


def test_children_do_not_receive_the_terminals_ctrl_c() -> None:
    async def scenario() -> None:
        supervisor = Supervisor(stages=[[shell("exec sleep 100")]])
        async with supervisor.running():
            pid = supervisor.pids["program"]
            assert os.getpgid(pid) == pid != os.getpgid(0)

    asyncio.run(scenario())


SUPERVISING = """
import asyncio, sys
from archiver.embedded.program import Program
from archiver.embedded.supervisor import Supervisor

async def main():
    script = f"echo $$ > {sys.argv[1]}; exec sleep 100"
    program = Program(name="program", command=("/bin/sh", "-c", script))
    async with Supervisor(stages=[[program]]).running():
        await asyncio.sleep(100)

asyncio.run(main())
"""


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = (sys.executable, "-c", SUPERVISING, pid_file)
    with running(command, log=tmp_path / "log", ready=lambda: read_pid(pid_file) > 0) as supervisor:
        child = read_pid(pid_file)
        assert alive(child)
        supervisor.kill()
        wait_until(lambda: not alive(child), what="the end of the child", timeout_s=5)
