"""The memory that the bodies of requests may occupy."""

from contextlib import ExitStack

import pytest

from archiver.errors import TooManyWaiters
from archiver.web.body_budget import BodyBudget


def test_one_client_leaves_room_for_the_bodies_of_others() -> None:
    budget = BodyBudget(400)
    with ExitStack() as stack:
        for size_bytes in (60, 40):
            stack.enter_context(budget.grant("greedy")).extend(size_bytes)
        with pytest.raises(TooManyWaiters), budget.grant("greedy") as more:
            more.extend(1)
        with budget.grant("other") as other:
            other.extend(100)
    with budget.grant("greedy") as again:
        again.extend(100)


def test_all_clients_together_have_one_budget() -> None:
    budget = BodyBudget(400)
    with ExitStack() as stack:
        for client in ("a", "b", "c", "d"):
            stack.enter_context(budget.grant(client)).extend(100)
        with pytest.raises(TooManyWaiters), budget.grant("e") as fifth:
            fifth.extend(1)
    with budget.grant("e") as fifth:
        fifth.extend(100)
