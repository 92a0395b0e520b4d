"""Which names may name a repo, a rev or a subdir."""

import pytest

from archiver.errors import InvalidRequest
from archiver.names import check_name


@pytest.mark.parametrize(
    "name",
    (
        "", "/", "a/", "/a", "a//b", ".", "..", "-", "a/../b", "a/-/b", "a\0b", "a\nb", "a\rb",
        "a\tb", "a?b", "a#b", "a@b", "a\\b", "a%b", "\ud800", "a\u200bb", "a\u202eb", "x" * 256,
        "é" * 43,
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
