"""Whether the presigned URLs of a region work for clients, at the public endpoint."""

from collections.abc import AsyncGenerator
from http import HTTPStatus

from archiver.diagnosis.finding import Finding, failure, warning, well
from archiver.diagnosis.region_names import RegionNames
from archiver.errors import StorageUnavailable
from archiver.ports.diagnosis import LinkAnswer, TrialBucket

RANGE_BYTES = 8


class LinkCheck:
    """Follows links as clients do: without credentials, at the address that clients get."""

    def __init__(self, *, names: RegionNames, bucket: TrialBucket) -> None:
        self._names = names
        self._bucket = bucket
        self._check = f"region.{names.region}.links"

    async def without_object(self) -> Finding:
        """Return whether the server accepts a link, which leads to no object."""
        try:
            answer = await self._bucket.follow_link("GET")
        except StorageUnavailable as exc:
            return self._unreachable(exc)
        if answer.status == HTTPStatus.NOT_FOUND and answer.code == "NoSuchKey":
            return well(self._check, "the server accepts presigned URLs")
        return self._refused("GET", answer)

    async def with_object(self, body: bytes) -> AsyncGenerator[Finding, None]:
        """Yield whether links return the object, which has this *body*."""
        try:
            whole = await self._bucket.follow_link("GET")
            head = await self._bucket.follow_link("HEAD")
            part = await self._bucket.follow_link("GET", first_bytes=RANGE_BYTES)
        except StorageUnavailable as exc:
            yield self._unreachable(exc)
            return
        if whole.status != HTTPStatus.OK:
            yield self._refused("GET", whole)
        elif head.status != HTTPStatus.OK:
            yield self._refused("HEAD", head)
        elif whole.body != body or head.size_bytes != len(body):
            found = "another server or a page answers presigned URLs, not the object"
            yield failure(self._check, found, f"check {self._names.public_setting}")
        else:
            yield well(self._check, "clients can GET and HEAD it through presigned URLs")
            yield self._ranges(part, body)

    def _ranges(self, part: LinkAnswer, body: bytes) -> Finding:
        check = f"region.{self._names.region}.ranges"
        if part.status == HTTPStatus.PARTIAL_CONTENT and part.body == body[:RANGE_BYTES]:
            return well(check, "clients can GET parts of it")
        found = "the server does not send parts of objects, so downloads cannot be resumed"
        return warning(check, found, "use a server, and proxies before it, that support Range")

    def _unreachable(self, exc: StorageUnavailable) -> Finding:
        setting = self._names.public_setting
        if exc.s3_code == "untrusted_certificate":
            found = "the certificate at the address of presigned URLs is not trusted"
            action = f"give {setting} a certificate that clients trust, for its host name"
            return failure(self._check, f"{found} ({exc.s3_code})", action)
        finding = self._names.explain(self._check, exc, needs="s3:GetObject", setting=setting)
        found = f"clients cannot download from {setting}: {finding.found}"
        return failure(self._check, found, finding.action)

    def _refused(self, method: str, answer: LinkAnswer) -> Finding:
        setting = self._names.public_setting
        code = answer.code or f"http_{answer.status}"
        if code == "SignatureDoesNotMatch":
            found = f"the signature of presigned URLs does not arrive intact ({code})"
            action = (
                f"have proxies at {setting} change neither host, path nor query, or set "
                f"{self._names.settings}.public_endpoint to the address that clients use"
            )
            return failure(self._check, found, action)
        refusal = StorageUnavailable("the link was refused", s3_code=code)
        finding = self._names.explain(self._check, refusal, needs="s3:GetObject", setting=setting)
        found = f"a {method} of a presigned URL at {setting} fails: {finding.found}"
        return failure(finding.check, found, finding.action)
