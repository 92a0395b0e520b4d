"""Ten ways to break a fleet: a diagnosis names each in one line, with what to do."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from archiver.diagnosis.finding import Level
from tests.diagnosis.diagnosing import (
    REGION,
    diagnose,
    diagnose_region,
    of,
    region_settings,
    unwell,
)
from tests.parts.nats import Nats, nats_binary
from tests.parts.process import accepts, free_port, running
from tests.parts.s3 import Home, S3Server
from tests.parts.s3_fault_proxy import S3FaultProxy, sink
from tests.parts.s3_strictness import Strictness

SETTING = f"regions.{REGION}"


@pytest.fixture
def proxy(home: Home) -> Iterator[S3FaultProxy]:
    with sink(home.server.endpoint) as opened:
        yield opened


def test_a_wrong_secret(home: Home) -> None:
    (finding,) = diagnose_region(home, secret_access_key="wrong")  # noqa: S106 - that is the test
    assert (finding.check, finding.level) == (f"region.{REGION}.list", Level.FAILED)
    assert finding.found == "the secret key is wrong (SignatureDoesNotMatch)"
    assert finding.action.startswith(f"set {SETTING}.secret_access_key")


def test_a_wrong_access_key(home: Home) -> None:
    (finding,) = diagnose_region(home, access_key_id="unknown")
    assert finding.found == "the server does not know the access key (InvalidAccessKeyId)"
    assert finding.action.startswith(f"correct {SETTING}.access_key_id")


def test_a_wrong_bucket(home: Home) -> None:
    (finding,) = diagnose_region(home, bucket="absent")
    assert (finding.check, finding.level) == (f"region.{REGION}.list", Level.FAILED)
    assert finding.found == "there is no bucket absent (NoSuchBucket)"
    assert finding.action.startswith(f"correct {SETTING}.bucket")


def test_a_wrong_region(home: Home, proxy: S3FaultProxy) -> None:
    proxy.strictness = Strictness(aws_region="eu-north-1")
    (finding,) = diagnose_region(home, endpoint=proxy.endpoint)
    assert (finding.check, finding.level) == (f"region.{REGION}.list", Level.FAILED)
    assert "is in another region than us-east-1" in finding.found
    assert finding.action.startswith(f"set {SETTING}.aws_region")


@pytest.mark.parametrize("ahead", (True, False))
def test_a_clock_that_is_so_wrong_that_signatures_are_refused(
    home: Home, proxy: S3FaultProxy, *, ahead: bool
) -> None:
    proxy.strictness = Strictness(lead=timedelta(minutes=40 if ahead else -40))
    (finding,) = diagnose_region(home, endpoint=proxy.endpoint)
    assert (finding.check, finding.level) == (f"region.{REGION}.clock", Level.FAILED)
    direction = "ahead of" if ahead else "behind"
    assert f"clock is 40 min {direction} that of this machine" in finding.found
    assert "NTP" in finding.action


def test_a_clock_that_is_somewhat_wrong(home: Home, proxy: S3FaultProxy) -> None:
    proxy.strictness = Strictness(lead=timedelta(minutes=5))
    found = diagnose_region(home, endpoint=proxy.endpoint)
    assert of(found, f"region.{REGION}.list").level is Level.OK
    finding = of(found, f"region.{REGION}.clock")
    assert finding.level is Level.WARNING
    assert "clock is 5 min ahead of that of this machine" in finding.found


def test_no_support_for_create_only_writes(rclone: S3Server) -> None:
    home = rclone.make_home((REGION,))
    finding = of(diagnose_region(home), f"region.{REGION}.create_only")
    assert finding.level is Level.WARNING
    assert "ignores If-None-Match" in finding.found
    assert "docs/how-to/set-up-buckets.md" in finding.action


def test_an_unreachable_public_endpoint(home: Home) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    failed = [
        each for each in diagnose_region(home, public_endpoint=url) if each.level is Level.FAILED
    ]
    (finding,) = failed
    assert finding.check == f"region.{REGION}.links"
    assert f"clients cannot download from {SETTING}.public_endpoint" in finding.found
    assert f"check host and port in {SETTING}.public_endpoint" in finding.action


def test_nats_without_jetstream(tmp_path: Path) -> None:
    port = free_port()
    command = [str(nats_binary()), "-a", "127.0.0.1", "-p", str(port)]
    with running(command, log=tmp_path / "log", ready=lambda: accepts(port)):
        found = diagnose({"engine": {"url": f"nats://127.0.0.1:{port}"}}, only="engine")
    (finding,) = unwell(found)
    assert (finding.check, finding.level) == ("engine.jetstream", Level.FAILED)
    assert finding.found == "JetStream is not enabled (no_jetstream)"
    assert "whether JetStream is enabled" in finding.action


def test_too_few_servers_for_the_replicas(nats: Nats) -> None:
    engine = {"url": nats.url, "replicas": 3}
    finding = of(diagnose({"engine": engine}, only="engine"), "engine.replicas")
    assert finding.level is not Level.OK
    assert "engine.replicas is 3, and the cluster has one server" in finding.found
    assert "docs/how-to/grow-nats.md" in finding.action


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    forge = {"kind": "git", "url_template": "https://git.example.org/{repo}.git"}
    (finding,) = diagnose({"sources": {"forge": forge}}, only="git")
    assert (finding.check, finding.level) == ("git", Level.FAILED)
    assert finding.found.startswith("sources of kind git: ")
    assert "install git 2.39.1 or later" in finding.action


def test_a_full_disk() -> None:
    """The file system of /proc never has a free byte."""
    settings = {"worker": {"work_dir": "/proc"}}
    finding = of(diagnose(settings, only="disk"), "disk.work_dir")
    assert finding.level is Level.FAILED
    assert finding.found.startswith("the disk of /proc is full: 0 MiB are free")
    assert finding.action == "make room, or set worker.work_dir to another disk"


def test_a_disk_that_is_smaller_than_the_settings_allow(tmp_path: Path) -> None:
    worker = {"work_dir": tmp_path, "work_max_bytes": 1 << 60}
    finding = of(diagnose({"worker": worker}, only="disk"), "disk.work_dir")
    assert finding.level is Level.WARNING
    assert finding.found.startswith("worker.work_max_bytes allows 1,073,741,824 GiB")
    assert "lower worker.work_max_bytes" in finding.action


def test_no_line_has_a_secret(home: Home) -> None:
    settings = region_settings(home, secret_access_key="precious")  # noqa: S106 - that is the test
    assert "precious" not in str(diagnose(settings, only=f"region.{REGION}"))
