"""Stored manifests cannot refer to another archive, or inject a header."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.manifest_check import OBJECT_MAX_BYTES, find_invalid_field, object_prefix
from archiver.model import Archive, Conversion, Manifest, Node

ARCHIVE = Archive(source="hgmo", repo="a b", node=Node("1" * 40), subdir="x", suffix="zip")
OTHER = replace(ARCHIVE, node=Node("2" * 40))
CONVERSION = Conversion(key=OTHER.key, sha256="b" * 64, size_bytes=1, converter="archiver 1, zlib")
PREFIX = object_prefix(ARCHIVE)
SOUND = Manifest(
    key=ARCHIVE.key,
    node=ARCHIVE.node,
    sha256="a" * 64,
    size_bytes=4,
    object_key=f"{PREFIX}a1-1/{ARCHIVE.file_name}",
    root="a b-111111111111",
    source_url="https://hg.example/a%20b/archive/111111111111.zip/x",
    created_at=datetime.now(UTC),
    conversion=CONVERSION,
)


def test_a_manifest_of_its_archive_is_valid() -> None:
    assert find_invalid_field(SOUND, ARCHIVE) is None
    assert find_invalid_field(replace(SOUND, conversion=None), ARCHIVE) is None


def test_an_object_key_of_an_earlier_version_is_valid() -> None:
    earlier = replace(SOUND, object_key=f"{PREFIX}a1/{ARCHIVE.file_name}")
    assert find_invalid_field(earlier, ARCHIVE) is None


@pytest.mark.parametrize(
    ("field", "value"),
    (
        ("key", OTHER.key),
        ("node", OTHER.node),
        ("sha256", "A" * 64),
        ("sha256", "a" * 63),
        ("sha256", "a" * 64 + "\n"),
        ("sha256", "a\r\nSet-Cookie: b"),
        ("size_bytes", -1),
        ("size_bytes", OBJECT_MAX_BYTES + 1),
        ("object_key", "private/backup.tar.gz"),
        ("object_key", f"manifests/{ARCHIVE.key}.json"),
        ("object_key", f"{object_prefix(OTHER)}a1/x.zip"),
        ("object_key", PREFIX),
        ("object_key", f"{PREFIX}x.zip"),
        ("object_key", f"{PREFIX}a1/b/x.zip"),
        ("object_key", f"{PREFIX}../x.zip"),
        ("object_key", f"{PREFIX}a1/../x.zip"),
        ("object_key", f"{PREFIX}a1/.."),
        ("object_key", f"{PREFIX}a1/x.zip\n"),
        ("object_key", f"{PREFIX}a1/x%2Fzip?a"),
        ("root", ""),
        ("root", ".."),
        ("root", "a/b"),
        ("root", "a\nb"),
        ("source_url", "https://hg.example/\r\nX: y"),
        ("source_url", "https://hg.example/\x1b[2J"),
        ("source_url", "https://hg.example/a b"),
        ("source_url", "javascript:alert(1)"),
        ("source_url", "https://" + "a" * 9000),
        ("created_at", datetime(2026, 1, 1)),  # noqa: DTZ001 - a time of nowhere
        ("created_at", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))),
        ("created_at", datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))),
        ("completeness", "a\r\nb"),
        ("links_outside", -5),
        ("links_outside", 10**300),
        ("conversion", replace(CONVERSION, key="nobody's")),
        ("conversion", replace(CONVERSION, sha256="b")),
        ("conversion", replace(CONVERSION, size_bytes=-1)),
        ("conversion", replace(CONVERSION, converter="a\r\nb")),
    ),
)
def test_the_first_invalid_field_is_named(field: str, value: object) -> None:
    assert find_invalid_field(replace(SOUND, **{field: value}), ARCHIVE) == field  # type: ignore[arg-type]


@given(tail=st.text())
def test_no_object_outside_its_prefix_belongs_to_an_archive(tail: str) -> None:
    manifest = replace(SOUND, object_key=f"{PREFIX}{tail}")
    if find_invalid_field(manifest, ARCHIVE) is None:
        attempt, name = tail.split("/")
        assert {".", "..", ""}.isdisjoint((attempt, name))
        assert tail.isascii()
        assert tail.isprintable()
