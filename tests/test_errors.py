"""The tree of errors, and its drawing."""

import inspect
import re
from datetime import timedelta

import pytest

from archiver import errors
from archiver.errors import (
    ArchiverError,
    InvalidRequest,
    SourceBusy,
    StorageUnavailable,
    TaskFailed,
    UnknownRev,
)
from archiver.telemetry import describe

CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ArchiverError)
}
DRAWN = {
    match["name"]: match
    for match in re.finditer(
        r"^[│ ]*[├└]── (?P<name>\w+)(?: +(?P<code>[a-z_]+))?(?: +(?P<retryable>retryable))?",
        errors.__doc__ or "",
        re.MULTILINE,
    )
}


def test_the_drawing_shows_every_class_with_its_code() -> None:
    assert DRAWN.keys() | {"ArchiverError"} == CLASSES.keys()
    for name, drawn in DRAWN.items():
        assert drawn["code"] == getattr(CLASSES[name], "code", None), name


def test_the_drawing_shows_which_errors_are_retryable() -> None:
    for name, drawn in DRAWN.items():
        assert bool(drawn["retryable"]) == CLASSES[name].retryable, name


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.code for kind in CLASSES.values() if "code" in vars(kind)]
    assert len(codes) == len(set(codes))


def test_a_message_is_the_text_of_its_error() -> None:
    for error in (
        InvalidRequest("so", parameter="rev", allowed="a name"),
        SourceBusy("so", retry_after=timedelta(seconds=1)),
        TaskFailed("so", code="wrong_root"),
        errors.LeaseLost("so"),
    ):
        assert error.message == str(error) == "so"


@pytest.mark.parametrize(
    "error",
    (
        UnknownRev("there is none"),
        SourceBusy("busy", retry_after=timedelta(seconds=1)),
        InvalidRequest("bad", parameter="rev", allowed="tip"),
        TaskFailed("it failed", code="corrupt_archive"),
    ),
    ids=lambda error: error.code,
)
def test_an_error_without_frames_is_equal_to_the_original(error: ArchiverError) -> None:
    try:
        raise error from ValueError("words of a library")
    except ArchiverError as exc:
        kept = exc.without_frames()

    assert type(kept) is type(error)
    assert (vars(kept), kept.args) == (vars(error), error.args)
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)


def test_causes_that_form_a_circle_are_read_once() -> None:
    """``raise exc from exc`` makes an exception its own cause."""
    first, second = StorageUnavailable("one"), StorageUnavailable("two", s3_code="SlowDown")
    first.__cause__ = first
    assert first.log_fields == {"code": "storage_unavailable"}
    first.__cause__, second.__cause__ = second, first
    assert first.log_fields["s3_code"] == "SlowDown"
    assert describe(first) == "StorageUnavailable < StorageUnavailable"
