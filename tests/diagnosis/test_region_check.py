"""The findings about a region that works, and about some that do not."""

import asyncio
from collections.abc import Iterator

import pytest

from archiver.diagnosis.examination import examine
from archiver.diagnosis.finding import Level
from archiver.manifest_check import parse_object_key
from archiver.runtime.tasks import cancel_and_wait
from archiver.settings import Settings
from archiver.storage.trial_bucket import trial_key
from archiver.wiring.diagnosis import create_checks
from tests.diagnosis.diagnosing import REGION, diagnose_region, of, region_settings, unwell
from tests.parts.s3 import Home, S3Server
from tests.parts.s3_fault_proxy import Fault, S3FaultProxy, sink

RULE = b"""<LifecycleConfiguration><Rule><ID>tidy</ID><Status>Enabled</Status>
<Filter><Prefix>%s</Prefix></Filter>%s</Rule></LifecycleConfiguration>"""
ABORT = b"""<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>
</AbortIncompleteMultipartUpload>"""
EXPIRE = b"<Expiration><Days>365</Days></Expiration>"


@pytest.fixture
def proxy(home: Home) -> Iterator[S3FaultProxy]:
    with sink(home.server.endpoint) as opened:
        yield opened


def test_a_region_that_works_is_well_and_left_as_it_was(home: Home) -> None:
    found = diagnose_region(home)
    assert [finding.check.rpartition(".")[2] for finding in found] == [
        *("list", "clock", "write", "create_only", "read", "links", "ranges", "delete"),
        *("uploads", "lifecycle"),
    ]
    (lifecycle,) = unwell(found)
    assert lifecycle.level is Level.WARNING
    assert "no lifecycle rule aborts unfinished uploads" in lifecycle.found
    assert not any(home.keys().values())


def test_a_server_without_create_only_writes_is_left_as_it_was(rclone: S3Server) -> None:
    home = rclone.make_home((REGION,))
    found = diagnose_region(home)
    assert {finding.level for finding in found} == {Level.OK, Level.WARNING}
    assert home.keys() == {REGION: []}


def test_with_the_rights_of_a_web_process_nothing_is_written(
    home: Home, proxy: S3FaultProxy
) -> None:
    found = diagnose_region(home, builds=False, endpoint=proxy.endpoint)
    steps = [finding.check.rpartition(".")[2] for finding in found]
    assert (steps, unwell(found)) == (["list", "clock", "links"], [])
    assert {method for method, _ in proxy.requests} == {"GET", "HEAD"}


def test_keys_that_may_only_read(home: Home, proxy: S3FaultProxy) -> None:
    proxy.misbehave = lambda method, _target: Fault.FORBID if method == "PUT" else None
    found = diagnose_region(home, endpoint=proxy.endpoint)
    finding = of(found, f"region.{REGION}.write")
    assert finding.level is Level.FAILED
    web = (
        "run it with --role web if these are the keys of a web process, else allow s3:PutObject on "
    )
    assert finding.action.startswith(web)
    assert of(found, f"region.{REGION}.links").level is Level.OK


def test_keys_of_another_bucket(home: Home, proxy: S3FaultProxy) -> None:
    proxy.misbehave = lambda _method, _target: Fault.FORBID
    (finding,) = diagnose_region(home, endpoint=proxy.endpoint)
    assert (finding.check, finding.level) == (f"region.{REGION}.list", Level.FAILED)
    assert finding.action.startswith(f"check the bucket's name in regions.{REGION}.bucket, or ")
    assert "allow s3:ListBucket on " in finding.action


def test_a_server_that_refuses_conditional_writes(home: Home, proxy: S3FaultProxy) -> None:
    proxy.misbehave = lambda method, _target: Fault.UNSUPPORTED if method == "PUT" else None
    finding = of(diagnose_region(home, endpoint=proxy.endpoint), f"region.{REGION}.write")
    assert finding.level is Level.FAILED
    assert "refuses writes with If-None-Match" in finding.found


def test_an_object_that_cannot_be_removed_is_reported(home: Home, proxy: S3FaultProxy) -> None:
    proxy.misbehave = lambda method, _target: Fault.FORBID if method == "DELETE" else None
    finding = of(diagnose_region(home, endpoint=proxy.endpoint), f"region.{REGION}.delete")
    assert finding.level is Level.FAILED
    assert "allow s3:DeleteObject" in finding.action


def test_a_diagnosis_that_is_interrupted_removes_its_object(
    home: Home, proxy: S3FaultProxy
) -> None:
    proxy.misbehave = lambda _method, _target: Fault.HANG
    settings = Settings(**region_settings(home, public_endpoint=proxy.endpoint))
    checks = create_checks(settings, builds=True, samples={})
    region = [check for check in checks if check.name == f"region.{REGION}"]

    async def play() -> None:
        examining = asyncio.create_task(examine(region, lambda _: None))
        while not proxy.requests:
            await asyncio.sleep(0.01)
        assert home.keys()[REGION]
        await cancel_and_wait(examining)

    asyncio.run(play())
    assert not any(home.keys().values())


def test_an_object_that_is_left_behind_is_one_that_sweeps_remove() -> None:
    assert parse_object_key(trial_key())


@pytest.mark.thorough
def test_a_region_that_hangs_is_given_up(home: Home, proxy: S3FaultProxy) -> None:
    proxy.misbehave = lambda _method, _target: Fault.HANG
    (finding,) = diagnose_region(home, endpoint=proxy.endpoint)
    assert finding.level is Level.FAILED
    assert finding.found == "there is no answer in time (timeout)"


def test_a_public_endpoint_that_is_another_server(home: Home, rclone: S3Server) -> None:
    finding = of(diagnose_region(home, public_endpoint=rclone.endpoint), f"region.{REGION}.links")
    assert finding.level is Level.FAILED
    assert f"regions.{REGION}.public_endpoint" in finding.found


@pytest.mark.parametrize(
    ("rules", "found"),
    (
        (RULE % (b"", ABORT), "a lifecycle rule aborts unfinished uploads"),
        (RULE % (b"archives/", EXPIRE), "a lifecycle rule deletes objects by their age"),
    ),
)
def test_lifecycle_rules_are_read(weed: S3Server, rules: bytes, found: str) -> None:
    home = weed.make_home((REGION,))
    status, body = weed.request("PUT", f"/{home.names[REGION]}", {"lifecycle": ""}, rules)
    assert status == 200, body
    finding = of(diagnose_region(home), f"region.{REGION}.lifecycle")
    assert finding.found.startswith(found)
