"""Points of a build, and the faults that wait for them."""

import threading

from tests.faults.moments import RANDOM, Moments

HUNG_AFTER_S = 60.0


def test_a_build_is_held_until_the_fault_has_begun() -> None:
    moments, order = Moments(), list[str]()

    def build() -> None:
        while not order:
            moments.reach("upload", 4711)
        order.append("build")

    building = threading.Thread(target=build)
    building.start()
    with moments.at("upload", within_s=HUNG_AFTER_S) as moment:
        order.append("fault")
    building.join(HUNG_AFTER_S)

    assert order == ["fault", "build"]
    assert (moment.reached, moment.peer) == (True, 4711)


def test_a_fault_begins_although_no_build_comes_to_its_moment() -> None:
    moments = Moments()

    with moments.at("upload", within_s=0.01) as moment:
        pass
    moments.reach("upload")  # is not held by the fault that gave up

    assert not moment.reached


def test_a_random_moment_is_no_point_of_a_build() -> None:
    moments = Moments()
    moments.reach(RANDOM)

    with moments.at(RANDOM, within_s=0.01) as moment:
        assert not moment.reached
