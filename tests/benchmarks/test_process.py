import subprocess
import sys

from benchmarks.process import resident_mb, sampling, usage
from tests.parts.process import wait_until

SPENDTHRIFT = """
import time
held = b"x" * 100_000_000
del held
while time.process_time() < 0.3:
    pass
print("spent", flush=True)
input()
"""


def test_the_usage_of_a_running_process_is_measured() -> None:
    command = [sys.executable, "-c", SPENDTHRIFT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        used = usage(process)
        process.communicate(b"\n")

    assert 0.2 < used.cpu_s < 1
    assert 100 <= used.peak_mb < 150


PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
HOLDER = "held = b'x' * 100_000_000; print('held', flush=True); input()"


def test_resident_memory_includes_child_processes() -> None:
    command = [sys.executable, "-c", PARENT, HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        held_mb = resident_mb(process)
        process.communicate(b"\n")

    assert 100 <= held_mb < 200


def test_peaks_are_those_of_each_program_and_of_all_together() -> None:
    command = [sys.executable, "-c", PARENT, HOLDER]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
        sampling(process) as peaks,
    ):
        assert process.stdout
        process.stdout.readline()
        wait_until(lambda: 100 <= max(peaks.by_program.values(), default=0) < peaks.together_mb)
        process.communicate(b"\n")

    (name,) = peaks.by_program
    assert name.startswith("python")
    assert 100 <= peaks.by_program[name] < peaks.together_mb < 200
