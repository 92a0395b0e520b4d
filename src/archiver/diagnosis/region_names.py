"""How the settings and the server call a region, in findings about it."""

from dataclasses import dataclass

from archiver.diagnosis.finding import Finding, failure
from archiver.diagnosis.s3_causes import cause_of
from archiver.errors import StorageUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionNames:
    """How a region is called: ``aws_region`` in signatures, ``bucket`` on the server."""

    region: str
    bucket: str
    aws_region: str
    has_public_endpoint: bool

    @property
    def settings(self) -> str:
        return f"regions.{self.region}"

    @property
    def endpoint_setting(self) -> str:
        return f"{self.settings}.endpoint"

    @property
    def public_setting(self) -> str:
        name = "public_endpoint" if self.has_public_endpoint else "endpoint"
        return f"{self.settings}.{name}"

    def explain(
        self, check: str, exc: StorageUnavailable, *, needs: str, setting: str = ""
    ) -> Finding:
        """Return the finding for *exc*. *setting* has the address that was asked."""
        cause = cause_of(exc.s3_code, needs=needs)
        words = {
            "region": self.settings,
            "endpoint": setting or self.endpoint_setting,
            "bucket": self.bucket,
            "aws_region": self.aws_region,
        }
        code = f" ({exc.s3_code})" if exc.s3_code else ""
        check = f"region.{self.region}.clock" if cause.clock else check
        return failure(check, f"{cause.found.format(**words)}{code}", cause.action.format(**words))
