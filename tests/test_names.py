"""Which names may name a repo, a rev or a subdir."""

import tracemalloc
from contextlib import suppress

import pytest

from archiver.errors import InvalidRequest
from archiver.names import NAMES_MAX, check_name


@pytest.mark.parametrize(
    "name",
    (
        "", "/", "a/", "/a", "a//b", ".", "..", "-", "a/../b", "a/-/b", "a\0b", "a\nb", "a\rb",
        "a\tb", "a?b", "a#b", "a@b", "a\\b", "a%b", "\ud800", "a\u200bb", "a\u202eb", "x" * 256,
        "é" * 43, "x/" * 350 + "x", "/".join(["é"] * 101),
    ),
)  # fmt: skip
def test_such_a_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_name(name, "subdir")
    assert refused.value.parameter == "subdir"
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "name", ("a", "a b", "é", "-a", "--", "...", ".hg", "a/b", "~", "x" * 255, "é" * 42, "a:b", "+")
)
def test_such_a_name_is_allowed(name: str) -> None:
    assert check_name(name, "repo") == name


def test_refused_names_and_long_ones_are_not_remembered() -> None:
    """Anyone may send any number of them, each as long as a request may be."""
    tracemalloc.start()
    try:
        for number in range(3000):
            for name in (f"{number}{'x' * 250}%", f"{number}/" * 1000, f"{number}" * 70):
                with suppress(InvalidRequest):
                    check_name(name, "repo")
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < NAMES_MAX * 1000
