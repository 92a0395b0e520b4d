"""No regular expression takes long over a long text, whoever wrote it."""

import ast
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import archiver

TEXT_CHARS = 64 * 1024

CPU_LIMIT_S = 0.5
"""For one text, of this process and not of the clock. Each takes some milliseconds; with a pattern
that backtracks quadratically, at least 5 s."""

SOURCES = {path: path.read_text() for path in sorted(Path(archiver.__file__).parent.rglob("*.py"))}
CALLS = frozenset(re.findall(r"\b(\w+)\.([a-z]+)\(", "\n".join(SOURCES.values())))
"""The names and methods of all calls such as ``name.method(``."""

UNKNOWN = frozenset({"fullmatch", "match", "search"})
"""The methods of a pattern that is handed to somebody who calls them."""

CLASSES = {"CATEGORY_SPACE": " ", "CATEGORY_DIGIT": "0", "CATEGORY_WORD": "a"}


@dataclass(frozen=True, kw_only=True)
class Use:
    """A pattern, where it stands, and the methods of it that the program calls."""

    place: str
    pattern: re.Pattern[str] | re.Pattern[bytes]
    methods: frozenset[str]


def uses() -> Iterator[Use]:
    for path, source in SOURCES.items():
        name = ".".join(path.relative_to(Path(archiver.__file__).parents[1]).with_suffix("").parts)
        if re.search(r"^import re$", source, re.MULTILINE):
            yield from _named(name)
            yield from _inline(name, source)


def _named(name: str) -> Iterator[Use]:
    for variable, value in vars(import_module(name)).items():
        if isinstance(value, re.Pattern):
            found = frozenset(method for called, method in CALLS if called == variable)
            yield Use(place=f"{name}.{variable}", pattern=value, methods=found or UNKNOWN)


def _inline(name: str, source: str) -> Iterator[Use]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="re"), attr=method), args=[text, *_]
            ):
                if method != "compile":
                    pattern = re.compile(ast.literal_eval(text))
                    place = f"{name}:{node.lineno}"
                    yield Use(place=place, pattern=pattern, methods=frozenset({method}))
            case _:
                pass


def pieces(tree: Iterable[Any]) -> Iterator[str]:
    """Yield what the parts of a parsed pattern match: its words, and a character of each class."""
    word = ""
    for operation, argument in tree:
        if str(operation) == "LITERAL":
            word += chr(argument)
            continue
        yield from filter(None, [word])
        word = ""
        match str(operation), argument:
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT", (_, _, repeated):
                yield from pieces(repeated)
            case "SUBPATTERN", (*_, group):
                yield from pieces(group)
            case "BRANCH", (_, branches):
                for branch in branches:
                    yield from pieces(branch)
            case "IN", members:
                yield from _of_class(members)
            case "ANY" | "NOT_LITERAL", _:
                yield "a"
            case _:
                pass
    yield from filter(None, [word])


def _of_class(members: Iterable[Any]) -> Iterator[str]:
    for kind, what in members:
        match str(kind):
            case "NEGATE":
                yield "a"
                return
            case "LITERAL":
                yield chr(what)
            case "RANGE":
                yield chr(what[0])
            case "CATEGORY" if str(what) in CLASSES:
                yield CLASSES[str(what)]


def worst(pattern: str) -> Iterator[str]:
    """Yield long texts of each part of *pattern*, alone and behind another one, that fail late."""
    parts = sorted(set(pieces(import_module("re._parser").parse(pattern))))
    for part in parts:
        for first in ("", *parts):
            yield first + part * (TEXT_CHARS // len(part)) + "\x01"


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise in the midst of a match, which looks for signals now and then."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        pytest.fail("it takes more time than a text of this length may")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def try_all(use: Use, *, within_s: float) -> None:
    pattern = use.pattern.pattern
    for bad in worst(pattern if isinstance(pattern, str) else pattern.decode("latin-1")):
        for method in use.methods:
            with cpu_limit(within_s):
                _try(use, method, bad)


def _try(use: Use, method: str, text: str) -> None:
    subject = text if isinstance(use.pattern.pattern, str) else text.encode("latin-1")
    arguments = [subject[:0], subject] if method == "sub" else [subject]
    found = getattr(use.pattern, method)(*arguments)
    if method == "finditer":
        list(found)


@pytest.mark.parametrize("use", list(uses()), ids=lambda use: use.place)
def test_a_pattern_reads_64_kb_of_its_worst_in_linear_time(use: Use) -> None:
    try_all(use, within_s=CPU_LIMIT_S)


@pytest.mark.parametrize("pattern", (r"\s*[a-z-]+\s*=?\s*", r"(?:a|aa)+"))
def test_a_pattern_that_backtracks_is_found_out(pattern: str) -> None:
    methods = frozenset({"fullmatch"})
    with pytest.raises(pytest.fail.Exception):
        try_all(Use(place="", pattern=re.compile(pattern), methods=methods), within_s=0.2)
