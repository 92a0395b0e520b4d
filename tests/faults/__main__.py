"""Run a fault campaign, and write docs/reliability.md."""

import argparse
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.campaign import Campaign, Say
from tests.faults.counts import Counts
from tests.faults.fleet import running_fleet
from tests.faults.kinds import Fault, Kind
from tests.faults.plan import all_kinds, faults, rounds
from tests.faults.report import Report

FULL = 1000


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the options of a campaign."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the plan; default: 1")
    parser.add_argument("--faults", type=int, default=FULL, help=f"number; default: {FULL}")
    parser.add_argument("--kinds", default="", help="only these kinds, separated by commas")
    parser.add_argument("--only", type=int, help="only the fault of this number")
    parser.add_argument("--minutes", type=float, default=120, help="begin no round later")
    parser.add_argument("--report", type=Path, help="page to write the counts into")
    parser.add_argument("--keep", type=Path, help="folder for logs that are kept")
    parser.add_argument("--list", action="store_true", help="print the kinds, and end")
    arguments = parser.parse_args(words)
    if unknown := {*filter(None, arguments.kinds.split(","))} - {*all_kinds()}:
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}; --list prints all")
    return arguments


def planned(arguments: argparse.Namespace, kinds: dict[str, Kind]) -> list[Fault]:
    """Return the faults that the arguments ask for."""
    chosen = dict(kinds)
    if arguments.kinds:
        chosen = {name: kinds[name] for name in arguments.kinds.split(",")}
    plan = list(itertools.islice(faults(arguments.seed, chosen), arguments.faults))
    if arguments.only:
        plan = [fault for fault in plan if fault.number == arguments.only]
    return plan


def run(arguments: argparse.Namespace, folder: Path, say: Say) -> Counts:
    """Run the campaign with a new fleet in *folder*."""
    kinds = all_kinds()
    plan = planned(arguments, kinds)
    began = time.monotonic()
    say(f"seed {arguments.seed}, {len(plan)} faults of {len({f.kind for f in plan})} kinds")
    with running_fleet(folder) as fleet:
        say("the fleet is ready")
        campaign = Campaign(fleet, arguments.seed, kinds, say)
        return campaign.run(rounds(plan, kinds), until=began + 60 * arguments.minutes)


def main(words: Sequence[str]) -> int:
    arguments = parse(words)
    if arguments.list:
        print("\n".join(sorted(all_kinds())))  # noqa: T201
        return 0
    os.environ["NO_PROXY"] = "127.0.0.1"
    with tempfile.TemporaryDirectory(prefix="archiver-faults-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        began = time.monotonic()

        def say(line: str) -> None:
            print(f"{time.monotonic() - began:7.1f} {line}", flush=True)  # noqa: T201

        counts = run(arguments, folder, say)
        report = Report(
            counts=counts,
            seed=arguments.seed,
            kinds=all_kinds(),
            took_s=time.monotonic() - began,
        )
    print("\n".join(report.lines()))  # noqa: T201
    if arguments.report:
        report.write(arguments.report)
    return bool(counts.findings)


def _exit(_signal: int, _frame: object) -> None:
    sys.exit("interrupted")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _exit)  # ends every process that was started
    sys.exit(main(sys.argv[1:]))
