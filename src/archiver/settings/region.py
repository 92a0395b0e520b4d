"""Settings of one region."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from archiver.settings.section import CaFile, HttpUrl, Network, Section


class RegionSettings(Section):
    """One region: one bucket."""

    bucket: str = Field(description="Name of the bucket.", min_length=3, max_length=63)
    endpoint: HttpUrl | None = Field(
        None, description="URL of an S3 server other than AWS. Default: AWS, in this region."
    )
    public_endpoint: HttpUrl | None = Field(
        None,
        description="URL at which clients reach the same S3 server. Presigned URLs are signed for "
        "it, and Archiver sends nothing there. Default: `endpoint`.",
    )
    aws_region: str | None = Field(
        None, description="Region to sign requests for. Default: the name of this region."
    )
    access_key_id: str | None = Field(
        None, description="Access key. Default: from the environment or the machine's role."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret key of `access_key_id`."
    )
    ca_file: CaFile | None = Field(
        default=None,
        description="PEM file with certificate authorities to trust besides the system's, for "
        "`endpoint`.",
    )
    virtual_hosted: bool = Field(
        default=False,
        description="Whether the bucket's name is part of the host name instead of the path.",
    )

    networks: tuple[Network, ...] = Field(
        (),
        description="Networks whose clients are near this region. The smallest network that "
        "contains a client decides. These networks override the published networks of clouds.",
    )
    aws_regions: tuple[str, ...] = Field(
        (),
        description="AWS regions near this one, besides `aws_region`. Their machines are "
        "redirected here: see `server.aws_ranges`.",
    )
    google_regions: tuple[str, ...] = Field(
        (),
        description="Google regions near this one, besides the one of the same name. Their "
        "machines are redirected here: see `server.google_ranges`.",
    )
    nearest: tuple[str, ...] = Field(
        (),
        description="Other regions, nearest first: where to redirect clients near this region if "
        "it has no copy. Default: the order of the file.",
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self
