"""Arbitrary bytes cause no 5xx, and only a valid address creates a task."""

from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver.errors import InvalidRequest
from archiver.model import TaskId, parse_task_id
from archiver.web.request_target import decode_source, parse_query, split_path
from tests.memory_world import ASH
from tests.web.client import PUBLIC_URL, Client

pieces = st.sampled_from(
    [
        b"/", b"archiver", b"/archiver/", b"/archiver/status/", b"hgmo", ASH.encode(), b"default",
        b"/get/", b".zip", b".sha256", b"/sha256/",
        b"..", b".", b"-", b"%2F", b"%2e", b"%00", b"%25", b"%", b"+", b":", b"~2F", b"\\", b"@",
        b"status", b"V_1", b"0" * 40, b"\xff", b"\xc3\xa9", b"%c3%a9", b"\r\n", b"\0",
    ]
)  # fmt: skip
query_pieces = st.sampled_from(
    [
        b"&", b"=", b"subdir", b"suffix", b"preferred_region", b"tar.gz", b"us-west-2", b"+",
        b"testing/mozharness", b"%2F", b"..", b";", b"%ff", b"?", b"#", b"&rev=", b"V_1",
    ]
)  # fmt: skip
paths = st.one_of(
    st.binary(),
    st.lists(pieces).map(b"".join),
    st.lists(pieces).map(lambda tail: b"/archiver/hgmo/" + b"".join(tail)),
    st.lists(pieces).map(lambda tail: b"/get/hgmo/projects/ash/" + b"".join(tail) + b".zip"),
    st.sampled_from([b"default", b"V_1", b"tip", b"default/", b"%64efault"]).map(
        lambda rev: b"/archiver/hgmo/projects/ash/" + rev
    ),
).map(lambda path: path.partition(b"?")[0])
queries = st.one_of(st.binary(), st.lists(query_pieces).map(b"".join))

patiently = settings(suppress_health_check=[HealthCheck.too_slow])


@settings(
    max_examples=600,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=paths, query=queries)
def test_no_bytes_break_it_and_only_an_address_creates_a_task(
    web: Client, path: bytes, query: bytes
) -> None:
    web.world.engine.tasks.clear()
    response = web.get(path + b"?" + query, prefer="respond-async")  # accepts a 202
    assert response.status in {200, 202, 400, 404}, response
    created = [task.archive for task in web.world.engine.tasks.values()]
    if response.status != 202:
        assert not created
    else:
        (archive,) = created
        status_url = f"{PUBLIC_URL}/archiver/status/{archive.task_id}"
        assert response.headers["location"] == status_url
        assert (archive.source, archive.repo, archive.node) == ("hgmo", ASH, web.world.node)


@patiently
@given(text=st.text())
def test_every_text_is_the_id_of_one_archive_or_of_no_archive(text: str) -> None:
    archive = parse_task_id(text)
    assert archive is None or archive.task_id == TaskId(text)


@patiently
@given(raw=st.binary().map(lambda raw: raw.decode("latin-1")), rev_in_query=st.booleans())
def test_an_address_is_split_or_refused(*, raw: str, rev_in_query: bool) -> None:
    refused: str | None = None
    segments: list[str] = []
    try:
        decode_source(raw)
        segments = split_path(raw, rev_in_query=rev_in_query)
    except InvalidRequest as exc:
        refused = exc.parameter
    else:
        assert not any("/" in segment for segment in segments[: None if rev_in_query else -1])
        assert len(segments) == max(1, raw.count("/"))
    assert refused in {None, "source", "repo", None if rev_in_query else "rev"}


@patiently
@given(
    pairs=st.dictionaries(
        st.sampled_from(["subdir", "suffix", "preferred_region"]),
        st.text(st.characters(codec="utf-8")),
    )
)
def test_a_form_encoded_query_is_decoded(pairs: dict[str, str]) -> None:
    raw = urlencode(pairs).encode()
    assert parse_query(b"&" + raw, known=tuple(pairs)) == pairs
