"""Locked archives as other tools pin them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlencode

from archiver.client.archive_request import SET
from archiver.client.failures import InvalidUsage
from archiver.client.lock_file import Entries, Entry

ESCAPED = "\\"
"""Before a line of sha256sum whose name has backslashes."""
PIP_SAFE = "/+@,=!"
"""Characters of a folder that mean nothing in a URL, besides letters, digits and ``._-~``."""


def file_url(server: str, entry: Entry) -> str:
    """Return the URL of an archive, which waits while it is built, under a file name.

    It has no character that means something in a string of the tools below.
    """
    path = f"{quote(entry.source, safe='')}/{quote(entry.repo.strip('/'))}"
    parameters = {"subdir": entry.subdir} if entry.subdir else {}
    query = urlencode({**parameters, **dict.fromkeys(entry.flags, SET)}, safe="/")
    file = f"{path}/{entry.node}.{entry.suffix}"
    return f"{quote(server.rstrip('/'), safe=':/%[]')}/get/{file}{'?' if query else ''}{query}"


def bazel(server: str, entries: Entries) -> Iterator[str]:
    yield 'load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")'
    for name, entry in entries.items():
        yield ""
        yield "http_archive("
        yield f"    name = {json.dumps(name)},"
        yield f"    sha256 = {json.dumps(entry.sha256)},"
        yield f"    urls = [{json.dumps(file_url(server, entry))}],"
        yield ")"


def nix(server: str, entries: Entries) -> Iterator[str]:
    yield "{ fetchurl }:"
    yield "{"
    for name, entry in entries.items():
        digest = base64.b64encode(bytes.fromhex(entry.sha256)).decode()
        yield f"  {json.dumps(name)} = fetchurl {{"
        yield f"    url = {json.dumps(file_url(server, entry))};"
        yield f'    hash = "sha256-{digest}";'
        yield "  };"
    yield "}"


def pip(server: str, entries: Entries) -> Iterator[str]:
    for name, entry in entries.items():
        if not name[-1].isalnum():
            raise InvalidUsage(
                f"{name} is no name for pip: it must end with a letter or digit",
                hint="Add the archive under another name, and remove this one with --remove.",
            )
        # Early versions of pip take all that follows the sum for a part of it.
        fragment = f"{_folder(name, entry)}sha256={entry.sha256}"
        yield f"{name} @ {file_url(server, entry)}#{fragment}"


def _folder(name: str, entry: Entry) -> str:
    """Return the part of a URL that says in which folder of the archive the project is.

    pip reads it as it is, without any unquoting.
    """
    subdir = entry.subdir.strip("/")
    if quote(subdir, safe=PIP_SAFE) != subdir:
        raise InvalidUsage(
            f"{name} is no archive for pip, which cannot read its subdir {subdir} from a URL",
            hint="Extract it with `archiver fetch`, and install the folder.",
        )
    return f"subdirectory={subdir}&" if subdir else ""


def cmake(server: str, entries: Entries) -> Iterator[str]:
    yield "include(FetchContent)"
    for name, entry in entries.items():
        yield (
            f"FetchContent_Declare({name} URL {json.dumps(file_url(server, entry))} "
            f"URL_HASH SHA256={entry.sha256})"
        )


def sha256sums(_server: str, entries: Entries) -> Iterator[str]:
    for name, entry in entries.items():
        if entry.extract:  # `archiver fetch` keeps no file
            continue
        file = entry.file_name(name)
        if file == "-":  # would be standard input
            file = "./-"
        escaped = file.replace("\\", "\\\\")
        yield f"{'' if escaped == file else ESCAPED}{entry.sha256}  {escaped}"


def left_out(format_name: str, entries: Entries) -> list[str]:
    """Return the names of the entries that this format does not have."""
    return [
        name for name, entry in entries.items() if format_name == "sha256sums" and entry.extract
    ]


FORMATS: Mapping[str, Callable[[str, Entries], Iterator[str]]] = {
    "bazel": bazel,
    "nix": nix,
    "pip": pip,
    "cmake": cmake,
    "sha256sums": sha256sums,
}
