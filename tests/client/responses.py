"""One archive, and what Archiver says about it to a client."""

import hashlib
import json

from tests.parts.scripted_server import Response

CONTENT = b"the bytes of an archive" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PART = f"here.{SHA256[:12]}.part"
"""The name of ``here`` until its download is complete."""
NODE = "42bf" * 10
REV_URL = "/archiver/hgmo/projects/ash/default"
NODE_URL = f"/archiver/hgmo/projects/ash/{NODE}"
STATUS = "/archiver/status/hgmo:projects:ash"
OBJECT = "/bucket/archives/v1/ash-42bf42bf42bf.tar.gz"
GET = ("get", "hgmo", "projects/ash", "default")
SIGNATURE = "X-Amz-Signature=0123456789abcdef"


def problem(status: int, code: str) -> Response:
    body = json.dumps({"code": code, "detail": f"because of {code}"}).encode()
    return Response(status=status, body=body, headers={"Content-Type": "application/problem+json"})


def progress(state: str, **members: object) -> Response:
    result = {"state": state, "status": "", "phase": "fetching", "bytes_done": 7, "s3_urls": {}}
    return Response(body=json.dumps({"result": result | members}).encode())
