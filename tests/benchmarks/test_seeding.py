"""An index that was seeded, as a web process finds it."""

from pathlib import Path

from benchmarks.seeding import seed, urls
from tests.system.client import fetch
from tests.system.stack import servers

NOBODY = "http://127.0.0.1:9/{repo}/archive/{rev}.{suffix}/{subdir}"


def test_what_was_seeded_is_a_hit_though_the_host_is_away(tmp_path: Path) -> None:
    with servers(tmp_path, template=NOBODY) as stack:
        seed(stack, 20)
        with stack.web():
            answers = [fetch(url) for url in urls(stack, range(20))]

    assert {answer.status for answer in answers} == {302}
    assert len({answer.location for answer in answers}) == 20
