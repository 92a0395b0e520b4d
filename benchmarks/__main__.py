"""Run benchmarks and write their tables into docs/benchmarks.md."""

import argparse
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.document import DOCUMENT, insert, render
from benchmarks.inputs import Inputs
from benchmarks.lab import open_lab
from benchmarks.programs import MissingProgram
from benchmarks.topics import TOPICS

ROUNDS = 5


def _cache() -> Path:
    named = os.environ.pop("ARCHIVER_BENCH_CACHE", None)  # not a setting of Archiver
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "archiver-bench"


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help=f"{', '.join(TOPICS)}; default: all"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds per topic; default: 5")
    parser.add_argument(
        "--quick", action="store_true", help="one round with small inputs; write nothing"
    )
    parser.add_argument("--cache", type=Path, default=_cache(), help="folder for inputs, 3 GB")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.topics) - set(TOPICS):
        parser.error(f"unknown topic: {', '.join(sorted(unknown))}")
    return arguments


def main(words: list[str]) -> None:
    arguments = _arguments(words)
    inputs = Inputs(arguments.cache, quick=arguments.quick)
    rounds = 1 if arguments.quick else arguments.rounds
    for topic in arguments.topics or TOPICS:
        module = import_module(f"benchmarks.topics.{topic}")
        print(f"{topic}: {module.__doc__}")
        started = time.monotonic()
        with open_lab(inputs, rounds=rounds) as lab:
            tables = module.measure(lab)
        measured = render(tables, rounds=rounds, duration_s=time.monotonic() - started)
        print(measured)
        if not arguments.quick:
            DOCUMENT.write_text(insert(DOCUMENT.read_text(), topic, measured))


def _exit(_signal: int, _frame: object) -> None:
    sys.exit("interrupted")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)  # stops every process that was started
    try:
        main(sys.argv[1:])
    except MissingProgram as exc:
        sys.exit(str(exc))
