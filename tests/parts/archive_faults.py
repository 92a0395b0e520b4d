"""Faulty archives that hosts send, and the expected ends of the tasks."""

import bz2
import gzip
import random
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import product

from tests.parts.fault_cases import Body, Case, Subject, body, refused, retried, script, sound
from tests.parts.faulty_host import Forever, head, until_close
from tests.parts.packing import BLOCK, TAR_END, tar_link, tar_member, tar_members, zipped

MAX_BYTES = 16 << 20
MAX_UNPACKED_BYTES = 320 << 20
MAX_MEMBERS = 200
"""The settings with which the cases must run."""

SUFFIXES = ("tar.gz", "tar.bz2", "zip")
PAGE = b"<!DOCTYPE html><html><body>Please come back later</body></html>\n"


def archive_faults() -> Iterator[Case]:
    """Yield each case once."""
    yield from _pages()
    yield from _encodings()
    yield from _damage()
    yield from _other_formats()
    yield from _tails()
    yield from _tars()
    yield from _zips()
    yield from _foreign_members()
    yield from _links()
    yield from _bombs()
    yield from _changes()


def _pages() -> Iterator[Case]:
    for name, suffix, kind in (
        ("html", "tar.gz", "text/html"),
        ("html-that-says-it-is-gzip", "tar.gz", "application/gzip"),
        ("html-that-says-it-is-a-zip", "zip", "application/zip"),
        ("xhtml", "tar.gz", "application/xhtml+xml; charset=utf-8"),
    ):
        page = body(lambda _: PAGE, {"Content-Type": kind})
        yield from retried(f"page-of-{name}", "not_an_archive", page, suffix=suffix)
    for suffix in SUFFIXES:
        nothing = body(lambda _: b"")
        yield from retried(f"nothing-as-{_word(suffix)}", "not_an_archive", nothing, suffix=suffix)
    for kind in ("text/plain", ";/;=", ""):
        yield sound(
            f"archive-of-type-{kind.encode().hex() or 'none'}",
            body(Subject.packed, {"Content-Type": kind}),
        )


def _encodings() -> Iterator[Case]:
    """The bytes decide whether a response is a tar.gz, not its Content-Encoding."""
    for encoding in ("gzip", "deflate", "br", "zstd", "x-nonsense"):
        yield sound(f"labelled-{encoding}", body(Subject.packed, {"Content-Encoding": encoding}))
    for suffix in SUFFIXES:
        yield from retried(
            f"gzipped-on-top-of-{_word(suffix)}",
            "not_an_archive",
            body(lambda s: gzip.compress(s.packed()), {"Content-Encoding": "gzip"}),
            suffix=suffix,
        )


def _damage() -> Iterator[Case]:
    for name, suffix, at in (
        ("gzip-crc", "tar.gz", -8),
        ("gzip-size", "tar.gz", -1),
        ("gzip-data", "tar.gz", 20_000),
        ("bzip2-crc", "tar.bz2", -3),
        ("bzip2-data", "tar.bz2", 20_000),
        ("zip-data", "zip", 20_000),
        ("zip-crc", "zip", _ZIP_CRC),
        ("zip-end", "zip", -4),
    ):
        yield from retried(
            f"damaged-{name}", "corrupt_archive", body(_flipped(Subject.packed, at)), suffix=suffix
        )
    header = body(_gzipped(_flipped(Subject.tar, 2 * BLOCK + 1)))
    yield from retried("damaged-tar-header", "corrupt_archive", header)


_ZIP_CRC = 14
"""Offset of the first member's CRC."""


def _flipped(content: Body, at: int) -> Body:
    """Return *content* with one bit changed."""

    def flipped(subject: Subject) -> bytes:
        data = bytearray(content(subject))
        data[at] ^= 0x10
        return bytes(data)

    return flipped


def _other_formats() -> Iterator[Case]:
    for asked, sent in product(SUFFIXES, repeat=2):
        if asked != sent:
            yield from retried(
                f"{_word(sent)}-for-{_word(asked)}",
                "not_an_archive",
                body(_packed_as(sent)),
                suffix=asked,
            )
    yield from retried("tar-for-tar-gz", "not_an_archive", body(Subject.tar))


def _packed_as(suffix: str) -> Body:
    return lambda subject: subject.packed(suffix=suffix)


def _tails() -> Iterator[Case]:
    for suffix, (name, tail) in product(
        SUFFIXES,
        {"a-byte": b"x", "an-apology": b"Internal Server Error", "zeros": bytes(BLOCK)}.items(),
    ):
        yield from retried(
            f"{name}-after-the-end-of-a-{_word(suffix)}",
            "corrupt_archive",
            body(_with_tail(tail)),
            suffix=suffix,
        )


def _with_tail(tail: bytes) -> Body:
    return lambda subject: subject.packed() + tail


def _tars() -> Iterator[Case]:
    """Tars that are truncated or damaged within a valid gzip or bzip2."""
    tars: dict[tuple[str, str], Body] = {
        ("without-its-end", "truncated_archive"): lambda s: tar_members(s.members()),
        ("with-half-its-end", "truncated_archive"): lambda s: s.tar()[:-BLOCK],
        ("cut-between-members", "truncated_archive"): lambda s: tar_members(s.note()),
        ("cut-in-a-member", "truncated_archive"): lambda s: s.tar()[:20_000],
        ("of-nothing", "truncated_archive"): lambda _: b"",
        ("of-no-members", "not_an_archive"): lambda _: TAR_END * 10,
        ("with-more-after-its-end", "corrupt_archive"): lambda s: s.tar() + s.tar(),
        ("with-a-huge-pax-header", "corrupt_archive"): lambda s: s.tar(
            tar_member(f"{s.root}/a", comment="x" * (2 << 20))
        ),
        ("with-a-sparse-file", "corrupt_archive"): lambda s: s.tar(
            tar_member(f"{s.root}/a", b"", **{"GNU.sparse.name": "../../etc/passwd"})
        ),
        ("with-two-names-for-a-member", "corrupt_archive"): lambda s: s.tar(
            _header_alone(path="../../etc/passwd") + tar_member(f"{s.root}/a", path=f"{s.root}/a")
        ),
        ("that-announces-one-more", "corrupt_archive"): lambda s: s.tar(_header_alone(comment="x")),
        ("with-half-a-pax-record", "corrupt_archive"): lambda s: s.tar(
            tar_member(f"{s.root}/a", comment="xyz").replace(b"comment=", b"comment ")
        ),
    }
    for (name, code), tar in tars.items():
        yield from retried(f"tar-{name}", code, body(_gzipped(tar)))
    yield from retried(
        "tar-in-bzip2-without-its-end",
        "truncated_archive",
        body(lambda s: bz2.compress(tar_members(s.members()))),
        suffix="tar.bz2",
    )
    yield sound("gzip-of-two-members", body(_two_members), stored=_two_members)


def _header_alone(**records: str) -> bytes:
    """Return a PAX header without its member."""
    return tar_member("a", b"", **records)[:-BLOCK]


def _gzipped(tar: Body) -> Body:
    return lambda subject: gzip.compress(tar(subject), compresslevel=1, mtime=0)


def _two_members(subject: Subject) -> bytes:
    tar = subject.tar()
    return b"".join(gzip.compress(part, mtime=0) for part in (tar[:BLOCK], tar[BLOCK:]))


def _zips() -> Iterator[Case]:
    zips: dict[tuple[str, str], Body] = {
        ("without-its-directory", "truncated_archive"): lambda s: _up_to(b"PK\x01\x02", s.packed()),
        ("without-its-end", "truncated_archive"): lambda s: _up_to(b"PK\x05\x06", s.packed()),
        ("of-no-members", "not_an_archive"): lambda _: zipped([]),
        ("whose-directory-disagrees", "corrupt_archive"): _renamed_in_its_directory,
        ("with-an-end-in-its-comment", "corrupt_archive"): _with_another_end,
    }
    for (name, code), content in zips.items():
        yield from retried(f"zip-{name}", code, body(content), suffix="zip")
    yield sound("zip-of-64-bits", body(_wide), suffix="zip", stored=_wide)


def _up_to(mark: bytes, data: bytes) -> bytes:
    return data[: data.index(mark)]


def _renamed_in_its_directory(subject: Subject) -> bytes:
    data = subject.packed()
    members = _up_to(b"PK\x01\x02", data)
    return members + data[len(members) :].replace(b"/README", b"/ReadMe")


def _with_another_end(subject: Subject) -> bytes:
    end = subject.packed()[-22:]  # 4.3.16, without a comment
    return subject.packed()[:-2] + len(end).to_bytes(2, "little") + end


def _wide(subject: Subject) -> bytes:
    return zipped(subject.members().items(), wide=True)


def _foreign_members() -> Iterator[Case]:
    for suffix, (place, code, name) in product(
        ("tar.gz", "zip"),
        (
            ("above", "unsafe_member", "{root}/../../etc/passwd"),
            ("at-the-top", "unsafe_member", "/etc/passwd"),
            ("in-another-root", "wrong_root", "other/file"),
            ("in-a-root-much-like-it", "wrong_root", "{root}2/file"),
        ),
    ):
        yield refused(
            f"member-{place}-of-a-{_word(suffix)}", code, body(_with_member(name)), suffix=suffix
        )
    yield from retried(
        "member-with-a-nul",
        "corrupt_archive",
        body(_gzipped(lambda s: s.tar(tar_member(f"{s.root}/a", path=f"{s.root}/a\0b")))),
    )
    for suffix in SUFFIXES:
        yield from retried(
            f"another-changeset-as-{_word(suffix)}",
            "wrong_node",
            body(lambda s: s.packed(node="e" * 40)),
            suffix=suffix,
        )


def _with_member(name: str) -> Body:
    def content(subject: Subject) -> bytes:
        foreign = name.format(root=subject.root)
        if subject.suffix == "zip":
            return zipped([*subject.members().items(), (foreign, b"")])
        return gzip.compress(subject.tar(tar_member(foreign)))

    return content


def _links() -> Iterator[Case]:
    for name, target in {"at-the-top": "/etc/passwd", "above": "../../etc/passwd"}.items():
        linked = _gzipped(_with_link(tarfile.SYMTYPE, target, at=_LAST))
        yield sound(f"link-to-a-file-{name}", body(linked), stored=linked, last=_LAST)
    written_through = _gzipped(
        lambda s: s.tar(tar_link(f"{s.root}/l", "/etc") + tar_member(f"{s.root}/l/passwd"))
    )
    yield refused("member-below-a-link", "unsafe_member", body(written_through))
    for name, at in {"a-longer-name": "src/./link", "a-slash-at-its-end": "link/"}.items():
        link = body(_gzipped(_with_link(tarfile.SYMTYPE, "..", at=at)))
        yield refused(f"link-with-{name}", "unsafe_member", link)
    hard = body(_gzipped(_with_link(tarfile.LNKTYPE, "other/file")))
    yield refused("hard-link", "unsafe_member", hard)
    in_a_zip = "link-in-a-zip-to-a-file-above"
    yield sound(in_a_zip, body(_zip_link), suffix="zip", stored=_zip_link, last=_LAST)


_LAST = "zlink"
"""Name of a link that sorts after ``src/``, so that it is the last file."""


def _with_link(kind: bytes, target: str, *, at: str = "link") -> Body:
    return lambda subject: subject.tar(tar_link(f"{subject.root}/{at}", target, kind=kind))


def _zip_link(subject: Subject) -> bytes:
    link = zipfile.ZipInfo(f"{subject.root}/{_LAST}")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    return zipped([*subject.members().items(), (link, b"../../etc/passwd")])


def _bombs() -> Iterator[Case]:
    for name, content in {
        "gzip-bomb": _gzip_bomb(noise_bytes=100_000),
        "gzip-bomb-by-its-ratio": _gzip_bomb(noise_bytes=0),
        "too-many-members": _gzipped(lambda s: s.tar(_many(s))),
        "too-large": _too_large,
    }.items():
        yield refused(name, "archive_too_large", body(content))
    yield refused("zip-bomb", "archive_too_large", body(_zip_bomb), suffix="zip")
    yield refused(
        "too-many-members-of-a-zip", "archive_too_large", body(_many_zipped), suffix="zip"
    )
    yield refused(
        "endless",
        "archive_too_large",
        script(
            head({"Connection": "close"}),
            _gzipped(_large_member_start),
            Forever(gzip.compress(bytes(65536), compresslevel=0)),
        ),
    )


def _gzip_bomb(*, noise_bytes: int) -> Body:
    """Return a gzip whose contents are too large. Without noise, its ratio is too large as well."""
    noise = random.Random(0).randbytes(noise_bytes)  # noqa: S311
    piece = gzip.compress(bytes(8 << 20) + noise, compresslevel=1)
    return lambda subject: (
        _gzipped(_large_member_start)(subject) + piece * (MAX_UNPACKED_BYTES >> 23)
    )


def _large_member_start(subject: Subject) -> bytes:
    """Return a tar that ends at the start of a member of a gigabyte."""
    member = tarfile.TarInfo(f"{subject.root}/large")
    member.size = 1 << 30
    return tar_members(subject.members()) + member.tobuf(tarfile.PAX_FORMAT)


def _zip_bomb(subject: Subject) -> bytes:
    zeros = bytes(MAX_UNPACKED_BYTES // 8)
    more = [(f"{subject.root}/{number}", zeros) for number in range(8)]
    return zipped([*subject.members().items(), *more])


def _many(subject: Subject) -> bytes:
    return b"".join(tar_member(f"{subject.root}/{number}") for number in range(MAX_MEMBERS))


def _many_zipped(subject: Subject) -> bytes:
    more = [(f"{subject.root}/{number}", b"") for number in range(MAX_MEMBERS)]
    return zipped([*subject.members().items(), *more])


def _too_large(subject: Subject) -> bytes:
    return subject.packed(size_bytes=MAX_BYTES + 1)


def _changes() -> Iterator[Case]:
    """Hosts that send different bytes for the same changeset each time."""
    yield Case(
        name="other-bytes-after-half-of-the-first",
        responses=[
            script(lambda s: until_close(s.packed()[:20_000])),
            body(_other_bytes),
        ],
        failures=1,
        requests=2,
        stored=_other_bytes,
    )
    yield Case(
        name="other-bytes-after-all-of-the-first",
        responses=[body(Subject.packed), body(_other_bytes)],
    )


def _other_bytes(subject: Subject) -> bytes:
    return subject.packed(seed="otherwise")


def _word(suffix: str) -> str:
    return suffix.replace(".", "-")
