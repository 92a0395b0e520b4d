"""The host of the benchmarks: it sends valid archives at the requested rate."""

import asyncio
import time
from pathlib import Path

from archiver.formats.verify import StreamVerifier
from archiver.model import Archive, Node
from archiver.sources.hgweb.source import HgArchivalCheck
from benchmarks.host import BURST_BYTES, Bucket
from benchmarks.inputs import BASENAME, NODE, ROOT, Inputs
from benchmarks.lab import Lab, new_repo
from tests.system.client import fetch

RATE = 10e6


def test_the_host_sends_a_valid_archive(tmp_path: Path) -> None:
    lab = Lab(inputs=Inputs(tmp_path, quick=True), folder=tmp_path, rounds=1)
    archive = lab.inputs.get("8GB")

    with lab.host(archive) as host:
        sent = fetch(host.url(archive)).body

    assert len(sent) == archive.size_bytes
    asyncio.run(_verify(sent))


async def _verify(sent: bytes) -> None:
    archive = Archive(source="x", repo=BASENAME, node=Node(NODE), subdir="", suffix="tar.gz")
    verifier = StreamVerifier(archive, root=ROOT, identity=HgArchivalCheck(archive.node))
    await verifier.update(sent)
    await verifier.finish()


def test_the_host_records_when_it_sent_the_last_byte(tmp_path: Path) -> None:
    lab = Lab(inputs=Inputs(tmp_path, quick=True), folder=tmp_path, rounds=1)
    archive = lab.inputs.get("10MB")
    repo = new_repo(archive)

    with lab.host(archive) as host:
        before = time.monotonic()
        fetch(f"{host.address}/{repo}/archive/{NODE[:12]}.tar.gz")

        assert before < host.ended_at(repo) < time.monotonic()


def test_the_bucket_limits_the_rate() -> None:
    bucket = Bucket(RATE)
    started = time.monotonic()

    for _ in range(20):
        bucket.take(100_000)

    assert time.monotonic() - started >= 0.2


def test_idle_time_allows_no_more_than_one_burst() -> None:
    bucket = Bucket(RATE)
    time.sleep(2 * BURST_BYTES / RATE)
    started = time.monotonic()

    bucket.take(2 * BURST_BYTES)

    assert time.monotonic() - started >= BURST_BYTES / RATE


def test_the_host_counts_the_fetches_of_an_archive(tmp_path: Path) -> None:
    lab = Lab(inputs=Inputs(tmp_path, quick=True), folder=tmp_path, rounds=1)
    archive = lab.inputs.get("10MB")
    repo = new_repo(archive)

    with lab.host(archive) as host:
        before = host.fetched(repo)
        for _ in range(2):
            fetch(f"{host.address}/{repo}/archive/{NODE[:12]}.tar.gz")

        assert (before, host.fetched(repo)) == (0, 2)
