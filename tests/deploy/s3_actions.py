"""Which actions of IAM a request to S3 needs, and whether a policy allows them."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ARN = "arn:aws:s3:::"


@dataclass(frozen=True, slots=True, order=True)
class Access:
    """An action and the resource that it concerns."""

    action: str
    resource: str


def access_of(method: str, target: str) -> Access:
    """Return what a request with this method and target needs.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
    """
    url = urlsplit(target)
    query = parse_qs(url.query, keep_blank_values=True)
    bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
    resource = f"{ARN}{bucket}/{key}" if key else f"{ARN}{bucket}"
    match (method, bool(key)):
        case ("GET", False) if "uploads" in query:
            return Access("s3:ListBucketMultipartUploads", resource)
        case ("GET", False) if query.get("list-type") == ["2"]:
            return Access("s3:ListBucket", resource)
        case ("GET" | "HEAD", True):
            return Access("s3:GetObject", resource)
        case ("PUT", True) | ("POST", True) if not query.keys() - {
            "uploads",
            "uploadId",
            "partNumber",
        }:
            return Access("s3:PutObject", resource)
        case ("DELETE", True) if "uploadId" in query:
            return Access("s3:AbortMultipartUpload", resource)
        case ("DELETE", True):
            return Access("s3:DeleteObject", resource)
        case _:
            raise AssertionError(f"no action is known for {method} {target}")


def grants(policy: dict[str, Any]) -> frozenset[Access]:
    """Return each action with each pattern of resources that *policy* allows it for."""
    found = set()
    for statement in policy["Statement"]:
        assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        for action in _listed(statement["Action"]):
            found |= {Access(action, resource) for resource in _listed(statement["Resource"])}
    return frozenset(found)


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def covers(grant: Access, access: Access) -> bool:
    """Return whether *grant* allows *access*."""
    assert not re.search(r"[?\[]", grant.resource)
    return grant.action == access.action and fnmatchcase(access.resource, grant.resource)
