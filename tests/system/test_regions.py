"""The region of redirects: by client address, behind a proxy, at the public endpoint."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.hgweb import Ash, Hgweb
from tests.parts.slow_host import SlowHost, slow_host
from tests.system.client import fetch, poll, stored
from tests.system.stack import REGIONS, Stack, servers

pytestmark = pytest.mark.thorough

EAST, WEST = REGIONS
IN_EAST, IN_WEST, IN_PARIS = "192.0.2.7", "198.51.100.7", "198.51.100.200"


@pytest.fixture(scope="module")
def public(idle_stack: Stack) -> Iterator[SlowHost]:
    """The public endpoint of the western region."""
    with slow_host(idle_stack.regions[WEST].port) as public:
        yield public


@pytest.fixture(scope="module")
def idle_stack(tmp_path_factory: pytest.TempPathFactory, hgweb: Hgweb) -> Iterator[Stack]:
    """A stack without our own processes. It locates clients by AWS's file and a proxy's header."""
    folder = tmp_path_factory.mktemp("stack")
    settings = {
        "ARCHIVER_SERVER__AWS_RANGES": str(_aws_ranges(folder)),
        "ARCHIVER_SERVER__TRUSTED_PROXIES": '["127.0.0.0/8"]',
    }
    with servers(folder, template=hgweb.template, settings=settings) as stack:
        yield stack


def _aws_ranges(folder: Path) -> Path:
    path = folder / "ip-ranges.json"
    prefixes = [
        {"ip_prefix": "198.51.100.0/24", "region": WEST, "service": "AMAZON"},
        {"ip_prefix": "198.51.100.128/25", "region": "eu-west-3", "service": "EC2"},
    ]
    path.write_text(json.dumps({"syncToken": "1", "prefixes": prefixes, "ipv6_prefixes": []}))
    return path


@pytest.fixture(scope="module")
def stack(idle_stack: Stack, public: SlowHost) -> Iterator[Stack]:
    regions = json.loads(idle_stack.env["ARCHIVER_REGIONS"])
    regions[EAST]["networks"] = ["192.0.2.0/24"]
    regions[WEST]["public_endpoint"] = f"http://127.0.0.1:{public.port}"
    idle_stack.env["ARCHIVER_REGIONS"] = json.dumps(regions)
    with idle_stack.web(), idle_stack.worker():
        yield idle_stack


def test_clients_are_redirected_to_the_public_endpoint_of_the_nearest_region(
    stack: Stack, public: SlowHost, ash: Ash
) -> None:
    url = stack.url(ash.repo, ash.node)
    poll(fetch(url, headers={"X-Forwarded-For": IN_WEST}).location, stored)
    assert not public.targets

    for _ in range(3):  # found, cached, and served from the cache
        for forwarded, region in (
            (IN_WEST, WEST),
            (f"{IN_EAST}, {IN_WEST}", WEST),
            (IN_EAST, EAST),
            (IN_PARIS, EAST),
            (None, EAST),
        ):
            answer = fetch(url, headers={"X-Forwarded-For": forwarded} if forwarded else {})
            assert (answer.status, answer.headers["Archiver-Region"]) == (302, region)
            assert answer.headers["Archiver-Region-Fallback"] is None
            port = public.port if region == WEST else stack.regions[EAST].port
            assert answer.location.startswith(f"http://127.0.0.1:{port}/")

    answer = fetch(f"{url}?preferred_region=mars", headers={"X-Forwarded-For": IN_WEST})
    assert answer.headers["Archiver-Region-Fallback"] == "mars"
    body = fetch(answer.location)
    assert (body.status, len(body.body)) == (200, int(answer.headers["Archiver-Size"]))
    head = fetch(url, method="HEAD", headers={"X-Forwarded-For": IN_WEST})
    assert fetch(head.location, method="HEAD").status == 200
    assert len(public.targets) == 2


def test_the_log_names_the_client_and_not_the_proxy(stack: Stack, ash: Ash) -> None:
    forwarded = {"X-Forwarded-For": "203.0.113.99", "X-Request-ID": "whose"}
    fetch(stack.url(ash.repo, "no-such-rev"), headers=forwarded)
    line = json.loads(stack.line('"request_id": "whose"'))
    assert line["client"] == "203.0.113.99"
