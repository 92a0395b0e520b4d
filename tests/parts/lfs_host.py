"""Git LFS for a git host of tests: the batch API and basic transfers, from a folder.

The official client can push to it and pull from it: ``tests/programs/test_git_lfs.py``.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archiver.git_objects.lfs_pointer import Pointer

MEDIA_TYPE = "application/vnd.git-lfs+json"
API = ".git/info/lfs"

_TARGET = re.compile(rf"/(?P<repo>[^?]+?){re.escape(API)}/(?P<verb>[^?]*)(\?.*)?")

Json = dict[str, Any]

ChangeAnswer = Callable[[Json], None]
"""Changes the response to a batch; its files are in ``objects``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LfsRequest:
    """A request for LFS that the host received. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LfsResponse:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(kw_only=True)
class LfsService:
    """Serves the LFS files of every repository, which are in *folder*.

    ``change`` is applied to the response to each batch for a download. With ``token``, each
    transfer must carry it as its Authorization, and gets it as a header of its action. ``links`` is
    the address of the host that serves the files. With ``refusal``, batches get that response.
    """

    folder: Path
    links: str
    change: ChangeAnswer = lambda _: None
    token: str = ""
    refusal: LfsResponse | None = None
    requests: list[LfsRequest] = field(default_factory=list)

    @property
    def batches(self) -> list[LfsRequest]:
        return [each for each in self.requests if each.method == "POST"]

    @property
    def downloads(self) -> list[LfsRequest]:
        return [each for each in self.requests if each.method == "GET"]

    def add(self, repo: str, content: bytes) -> Pointer:
        """Store a file of *repo*, and return its pointer."""
        pointer = Pointer(hashlib.sha256(content).hexdigest(), len(content))
        path = self.path(repo, pointer.sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return pointer

    def path(self, repo: str, oid: str) -> Path:
        """Return the path of a file, which may not exist."""
        return self.folder / repo / oid

    def respond(self, request: LfsRequest) -> LfsResponse | None:
        """Return the response to *request*; None if it is not one for LFS."""
        target = _TARGET.fullmatch(request.target)
        if not target:
            return None
        self.requests.append(request)
        repo, verb = target["repo"], target["verb"]
        match request.method, verb.split("/"):
            case "POST", ["objects", "batch"]:
                return self.refusal or self._answer(repo, json.loads(request.body))
            case "POST", ["verify"]:
                wanted = json.loads(request.body)
                path = self.path(repo, wanted["oid"])
                whole = path.is_file() and path.stat().st_size == wanted["size"]
                return _json({}, 200 if whole else 404)
            case "GET", ["files", oid]:
                return self._download(request, self.path(repo, oid))
            case "PUT", ["files", oid]:
                right = hashlib.sha256(request.body).hexdigest() == oid
                if right:
                    self.add(repo, request.body)
                return _json({}, 200 if right else 422)
            case _:
                return _json({"message": "Not found"}, 404)

    def _download(self, request: LfsRequest, path: Path) -> LfsResponse:
        if self.token and request.headers.get("authorization") != self.token:
            return _json({"message": "Forbidden"}, 403)
        if not path.is_file():
            return _json({"message": "Not found"}, 404)
        return LfsResponse(
            headers={"Content-Type": "application/octet-stream"}, body=path.read_bytes()
        )

    def _answer(self, repo: str, asked: Json) -> LfsResponse:
        upload = asked["operation"] == "upload"
        describe = self._to_upload if upload else self._to_download
        answer: Json = {
            "transfer": "basic",
            "objects": [describe(repo, each) for each in asked["objects"]],
            "hash_algo": "sha256",
        }
        if not upload:
            self.change(answer)
        return _json(answer)

    def _to_download(self, repo: str, asked: Json) -> Json:
        if not self.path(repo, asked["oid"]).is_file():
            return {**asked, "error": {"code": 404, "message": "Object does not exist"}}
        return {**asked, "authenticated": True, "actions": {"download": self._action(repo, asked)}}

    def _to_upload(self, repo: str, asked: Json) -> Json:
        if self.path(repo, asked["oid"]).is_file():
            return asked
        verify = {"href": f"{self.links}/{repo}{API}/verify"}
        return {**asked, "actions": {"upload": self._action(repo, asked), "verify": verify}}

    def _action(self, repo: str, asked: Json) -> Json:
        header = {"header": {"Authorization": self.token}} if self.token else {}
        return {"href": f"{self.links}/{repo}{API}/files/{asked['oid']}", **header}


def _json(body: Json, status: int = 200) -> LfsResponse:
    return LfsResponse(
        status=status, headers={"Content-Type": MEDIA_TYPE}, body=json.dumps(body).encode()
    )
