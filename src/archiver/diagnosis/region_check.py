"""Whether a region does all that Archiver, and clients, need of it."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta

from archiver.diagnosis.finding import Finding, Level, failure, warning, well
from archiver.diagnosis.link_check import LinkCheck
from archiver.diagnosis.region_names import RegionNames
from archiver.errors import StorageUnavailable
from archiver.ports.diagnosis import TrialBucket, UploadRule

LEAD_MAX = timedelta(seconds=5)
"""The clocks of a fleet must agree so far, because leases count on that. S3 accepts signatures of
the last and the next 15 minutes."""

SIGNED_FOR = timedelta(minutes=15)

BUCKETS_PAGE = "docs/how-to/set-up-buckets.md"


class RegionCheck:
    """Examines one region, with the rights of a web process unless it *writes*.

    A failure that the following steps would share ends the examination.
    """

    def __init__(self, *, names: RegionNames, bucket: TrialBucket, writes: bool) -> None:
        self._names = names
        self._bucket = bucket
        self._writes = writes
        self._body = f"archiver doctor {secrets.token_hex(8)}\n".encode()
        self._links = LinkCheck(names=names, bucket=bucket)

    async def run(self) -> AsyncGenerator[Finding, None]:
        try:
            await self._bucket.list_objects()
        except StorageUnavailable as exc:
            yield await self._explain_list(exc)
            return
        yield well(self._name("list"), f"the bucket {self._names.bucket} can be listed")
        clock = await self._clock()
        yield clock
        if clock.level is Level.FAILED:
            return
        if not self._writes:
            yield await self._links.without_object()
            return
        async with aclosing(self._trial()) as findings:
            async for finding in findings:
                yield finding
        yield await self._uploads()
        yield await self._lifecycle()

    def _name(self, step: str) -> str:
        return f"region.{self._names.region}.{step}"

    async def _explain_list(self, exc: StorageUnavailable) -> Finding:
        """Return why the bucket was not listed. Servers have several codes for a wrong clock."""
        finding = self._names.explain(self._name("list"), exc, needs="s3:ListBucket")
        lead = None
        with suppress(StorageUnavailable):
            lead = await self._bucket.clock_lead()
        if lead is None or abs(lead) <= SIGNED_FOR:
            return finding
        return self._refused_by_clock(lead)

    def _refused_by_clock(self, lead: timedelta) -> Finding:
        found = f"{_describe(lead)}, so signatures are refused"
        return failure(self._name("clock"), found, _NTP)

    async def _clock(self) -> Finding:
        check = self._name("clock")
        try:
            lead = await self._bucket.clock_lead()
        except StorageUnavailable as exc:
            return self._names.explain(check, exc, needs="s3:ListBucket")
        if lead is None:
            return well(check, "the server sends no time")
        if abs(lead) > SIGNED_FOR:
            return self._refused_by_clock(lead)
        if abs(lead) > LEAD_MAX:
            return warning(check, _describe(lead), _NTP)
        return well(check, "the server has the same time as this machine")

    async def _trial(self) -> AsyncGenerator[Finding, None]:
        """Write an object, try all that is done with objects, and remove it."""
        try:
            try:
                await self._bucket.create(self._body)
            except StorageUnavailable as exc:
                yield self._explain_write(exc)
                yield await self._links.without_object()
                return
            yield well(self._name("write"), "a small object was written")
            yield await self._create_only()
            yield await self._read()
            async for finding in self._links.with_object(self._body):
                yield finding
        finally:
            removed = await self._remove()
        yield removed

    def _explain_write(self, exc: StorageUnavailable) -> Finding:
        check = self._name("write")
        if exc.s3_code in {"NotImplemented", "http_501"}:
            found = f"the server refuses writes with If-None-Match ({exc.s3_code})"
            return failure(check, found, _CREATE_ONLY)
        return self._names.explain(check, exc, needs="s3:PutObject")

    async def _create_only(self) -> Finding:
        check = self._name("create_only")
        try:
            refused = not await self._bucket.create(self._body[::-1])
        except StorageUnavailable as exc:
            return self._names.explain(check, exc, needs="s3:PutObject")
        if refused:
            return well(check, "the server refuses to replace it (If-None-Match)")
        self._body = self._body[::-1]
        found = "the server ignores If-None-Match, so a late write can replace a manifest"
        return warning(check, found, _CREATE_ONLY)

    async def _read(self) -> Finding:
        check = self._name("read")
        try:
            body = await self._bucket.read()
        except StorageUnavailable as exc:
            return self._names.explain(check, exc, needs="s3:GetObject")
        if body != self._body:
            found = "the server returns other bytes than were written"
            return failure(check, found, "use another server, or repair it before anything else")
        return well(check, "it was read with the same bytes")

    async def _remove(self) -> Finding:
        try:
            await self._bucket.delete()
        except StorageUnavailable as exc:
            return self._names.explain(self._name("delete"), exc, needs="s3:DeleteObject")
        return well(self._name("delete"), "it was removed")

    async def _uploads(self) -> Finding:
        check = self._name("uploads")
        try:
            await self._bucket.list_uploads()
        except StorageUnavailable as exc:
            return self._names.explain(check, exc, needs="s3:ListBucketMultipartUploads")
        return well(check, "unfinished uploads can be listed")

    async def _lifecycle(self) -> Finding:
        check = self._name("lifecycle")
        try:
            rules = await self._bucket.lifecycle()
        except StorageUnavailable as exc:
            return self._names.explain(check, exc, needs="s3:GetLifecycleConfiguration")
        if rules.expires:
            found = "a lifecycle rule deletes objects by their age, which loses archives"
            return warning(check, found, "remove the rule; retention.rules let archives expire")
        match rules.uploads:
            case UploadRule.SET:
                return well(check, "a lifecycle rule aborts unfinished uploads")
            case UploadRule.MISSING:
                found = "no lifecycle rule aborts unfinished uploads, only Archiver's daily sweep"
                return warning(check, found, f"add one for a day: see {BUCKETS_PAGE}")
            case UploadRule.HIDDEN:
                return well(check, "these keys may not see the lifecycle rules, and need not")
            case UploadRule.UNSUPPORTED:
                found = "the server has no lifecycle rules: Archiver's sweep aborts old uploads"
                return well(check, found)


_NTP = "synchronize the clock of this machine, or of the server, with NTP"

_CREATE_ONLY = (
    f"use AWS S3, SeaweedFS or another server with create-only writes where clients rely on "
    f"checksums: see {BUCKETS_PAGE}"
)


def _describe(lead: timedelta) -> str:
    seconds = abs(lead).total_seconds()
    amount = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"  # noqa: PLR2004
    direction = "ahead of" if lead > timedelta(0) else "behind"
    return f"the server's clock is {amount} {direction} that of this machine"
