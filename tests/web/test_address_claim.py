"""Two fleets do not share an address, and one fleet may."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

from archiver.web.address_claim import (
    ClaimedByOtherFleet,
    FleetIdentity,
    claimed_address,
    fleet_identity,
)
from tests.parts.process import free_port

OURS = fleet_identity(("nats://one:4222", "nats://two"), {"us-east-1": ("bucket", None)})
OTHER_ENGINE = fleet_identity(("nats://three",), {"us-east-1": ("bucket", None)})
OTHER_REGIONS = fleet_identity(("nats://one", "nats://two"), {"us-east-1": ("another", None)})


@pytest.mark.parametrize(
    "servers", (("tls://user:secret@TWO:4222", "one"), ("nats://two:4222", "nats://one:4222"))
)
def test_the_spelling_of_engine_urls_does_not_change_the_fleet(servers: tuple[str, ...]) -> None:
    assert fleet_identity(servers, {"us-east-1": ("bucket", None)}) == OURS


def test_servers_of_one_fleet_share_an_address() -> None:
    """One process makes both claims: processes of two containers may have the same id."""
    port = free_port()
    with ExitStack() as successor:
        with claimed_address("127.0.0.1", port, OURS):
            successor.enter_context(claimed_address("127.0.0.1", port, OURS))
        with pytest.raises(ClaimedByOtherFleet), claimed_address("127.0.0.1", port, OTHER_ENGINE):
            pass


@pytest.mark.parametrize(
    ("other", "setting"), ((OTHER_ENGINE, "engine.url"), (OTHER_REGIONS, "regions"))
)
def test_another_fleet_is_refused_until_the_first_has_ended(
    other: FleetIdentity, setting: str
) -> None:
    port = free_port()
    with claimed_address("127.0.0.1", port, OURS):
        refused = pytest.raises(
            ClaimedByOtherFleet, match=f"127.0.0.1, port {port}, .* `{setting}`"
        )
        with refused, claimed_address("127.0.0.1", port, other):
            pass
    with claimed_address("127.0.0.1", port, other):
        pass


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    (
        ("0.0.0.0", "127.0.0.1", True),  # noqa: S104 - no server listens there
        ("::", "127.0.0.1", True),
        ("::", "0.0.0.0", True),  # noqa: S104
        ("::", "::1", True),
        ("0.0.0.0", "::1", False),  # noqa: S104
        ("127.0.0.1", "127.0.0.2", False),
        ("::1", "127.0.0.1", False),
    ),
)
def test_fleets_may_serve_at_addresses_that_do_not_overlap(
    one: str, other: str, *, overlap: bool
) -> None:
    for first, second in ((one, other), (other, one)):
        port = free_port()
        with ExitStack() as stack:
            stack.enter_context(claimed_address(first, port, OURS))
            if overlap:
                stack.enter_context(pytest.raises(ClaimedByOtherFleet))
            stack.enter_context(claimed_address(second, port, OTHER_ENGINE))


def test_one_of_two_fleets_that_start_at_once_is_refused() -> None:
    port, ready, done = free_port(), Barrier(4), Barrier(4)

    def start(fleet: FleetIdentity) -> bool:
        ready.wait(10)
        try:
            with claimed_address("127.0.0.1", port, fleet):
                done.wait(10)
                return True
        except ClaimedByOtherFleet:
            done.wait(10)
            return False

    fleets = [OURS, OTHER_ENGINE, OTHER_REGIONS, FleetIdentity(engine="x", regions="y")]
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(start, fleets)) == 1
