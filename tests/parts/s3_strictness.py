"""What AWS checks of a signature and the servers of the tests do not, or not by another clock.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

SKEW_MAX = timedelta(minutes=15)

_SCOPE = re.compile(r"Credential=[^/]+/(\d{8})/([^/]+)/s3/aws4_request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Strictness:
    """A server whose clock is ahead by ``lead``. It is of ``aws_region``, unless that is empty."""

    lead: timedelta = timedelta(0)
    aws_region: str = ""

    def date(self) -> str:
        """Return the time of this server, for the header ``Date``."""
        return format_datetime(datetime.now(UTC) + self.lead, usegmt=True)

    def refusal(self, target: str, headers: Message) -> tuple[int, bytes] | None:
        """Return the status and the code for a signed request that the server refuses."""
        query = parse_qs(urlsplit(target).query)
        presigned = "Credential=" + query.get("X-Amz-Credential", [""])[0]
        scope = _SCOPE.search(headers.get("authorization", "")) or _SCOPE.search(presigned)
        if scope is None:
            return None
        if self.aws_region and scope[2] != self.aws_region:
            return 400, b"AuthorizationHeaderMalformed"
        signed_at = headers.get("x-amz-date") or query["X-Amz-Date"][0]
        signed = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) + self.lead - signed) > SKEW_MAX:
            return 403, b"RequestTimeTooSkewed"
        return None
