"""Allowed names of repos, revs and subdirs."""

import tracemalloc
from contextlib import suppress

import pytest

from archiver.errors import InvalidRequest
from archiver.names import (
    NAMES_MAX,
    REV_MAX_BYTES,
    display_rev,
    escape_name,
    require_name,
    require_rev,
    unescape_segment,
)


@pytest.mark.parametrize(
    "name",
    (
        "", "/", "a/", "/a", "a//b", ".", "..", "-", "a/../b", "a/-/b", "a\0b", "a\nb", "a\rb",
        "a\tb", "a\\b", "\ud800", "a\u200bb", "a\u202eb", "x" * 256,
        "é" * 43, "x/" * 350 + "x", "/".join(["é"] * 101),
    ),
)  # fmt: skip
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        require_name(name, "subdir")
    assert refused.value.parameter == "subdir"
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "name",
    (
        "a",
        "a b",
        "é",
        "-a",
        "--",
        "...",
        ".hg",
        "a/b",
        "~",
        "x" * 255,
        "é" * 42,
        "a:b",
        "+",
        "@a",
        "a#b",
        "a?b",
        "a%2Fb",
    ),
)
def test_a_valid_name_is_allowed(name: str) -> None:
    assert require_name(name, "repo") == name


def test_refused_and_long_names_are_not_cached() -> None:
    """Clients may send any number of names, each as long as a request allows."""
    require_name.cache_clear()
    tracemalloc.start()
    try:
        for number in range(1000):
            for name in (f"{number}{'x' * 250}%", f"{number}/" * 1000, f"{number}" * 70):
                with suppress(InvalidRequest):
                    require_name(name, "repo")
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < NAMES_MAX * 1000
    before = require_name.cache_info().currsize
    for number in range(100):
        for name in (f"{number}{'x' * 255}", f"{number}\\", f"{number}/" * 1000, f"{number}/../a"):
            with pytest.raises(InvalidRequest):
                require_name(name, "repo")
    assert require_name.cache_info().currsize == before


@pytest.mark.parametrize("name", ("@a", "a#b", "a?b", "100%", "a%2Fb", "~40"))
def test_a_key_escapes_each_unsafe_character_of_a_name(name: str) -> None:
    assert not set("@#?%").intersection(escape_name(name))
    assert unescape_segment(escape_name(name)) == name


@pytest.mark.parametrize(
    "rev",
    ("@", "REL/2.0", "a#b", "a?b", "a%2Fb", "caf\xe9", "\u65e5\u3000\u672c", "-", "..", "a/../b",
     "a//b", "/a", "a/", "a\\b", " a", "a\u200db", "x" * REV_MAX_BYTES),
)  # fmt: skip
def test_a_rev_may_be_any_name_that_hosts_accept(rev: str) -> None:
    assert require_rev(rev) == rev


@pytest.mark.parametrize(
    ("rev", "reason"),
    (
        ("", "is empty"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\x1b[2J", "control character"),
        ("\x9b2J", "control character"),
        ("x" * REV_MAX_BYTES + "x", "longer than 1024 bytes"),
        ("\xe9" * REV_MAX_BYTES, "longer than 1024 bytes"),
        ("a\ud800", "cannot be encoded in UTF-8"),
        ("\udcff", "cannot be encoded in UTF-8"),
        ("\ud83d\udca9", "cannot be encoded in UTF-8"),
    ),
)
def test_an_invalid_rev_is_refused_with_the_reason_and_an_alternative(
    rev: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason) as refused:
        require_rev(rev)
    assert "request the changeset by its node" in refused.value.message
    assert refused.value.message.isprintable()


def test_a_displayed_rev_has_no_terminal_control_characters() -> None:
    assert display_rev("REL/2.0") == "REL/2.0"
    assert display_rev("caf\xe9") == "caf\xe9"
    assert display_rev("a\u202eb") == "a\\u202eb"
    assert display_rev("x" * 1000) == f"{'x' * 100}…"
