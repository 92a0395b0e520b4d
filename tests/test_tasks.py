"""Final states, and the expected duration of a queue."""

from datetime import timedelta

from archiver.tasks import Backlog, TaskState


def test_only_success_and_failure_are_final() -> None:
    assert {state for state in TaskState if state.terminal} == {
        TaskState.SUCCESS,
        TaskState.FAILURE,
    }


def test_a_queue_takes_one_mean_duration_per_round() -> None:
    mean = timedelta(seconds=10)
    assert Backlog(waiting=0, running=0).estimate_wait(mean) == mean
    assert Backlog(waiting=1, running=8).estimate_wait(mean) == mean
    assert Backlog(waiting=17, running=8).estimate_wait(mean) == 3 * mean
    assert Backlog(waiting=17, running=8, mean=mean / 10).estimate_wait(mean) == 3 * mean / 10
    assert Backlog(waiting=5, running=0).estimate_wait(mean) == 5 * mean
