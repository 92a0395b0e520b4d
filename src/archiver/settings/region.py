"""Settings of one region."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from archiver.settings.section import CaFile, HttpUrl, Network, Section


class RegionSettings(Section):
    """One region: one bucket."""

    bucket: str = Field(description="Name of the bucket.", min_length=3, max_length=63)
    endpoint: HttpUrl | None = Field(
        None, description="URL of an S3 server that is not AWS's. Default: AWS's in this region."
    )
    public_endpoint: HttpUrl | None = Field(
        None,
        description="URL of the same S3 server as clients reach it; links are signed for it, and "
        "nothing is sent there. Default: `endpoint`.",
    )
    aws_region: str | None = Field(
        None, description="The region to sign for. Default: the name of this region."
    )
    access_key_id: str | None = Field(
        None, description="Default: what the environment or the machine's role provides."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Goes with `access_key_id`."
    )
    ca_file: CaFile | None = Field(
        default=None,
        description="PEM file with authorities to trust besides the system's, for `endpoint`.",
    )
    virtual_hosted: bool = Field(
        default=False, description="Whether the bucket's name is part of the host's, not the path."
    )

    networks: tuple[Network, ...] = Field(
        (),
        description="Networks of the clients that are nearest to this region. "
        "Of networks that lie in one another the smallest counts. "
        "They count more than those that clouds publish.",
    )
    aws_regions: tuple[str, ...] = Field(
        (),
        description="AWS's regions that are near, besides `aws_region`: their machines are sent "
        "here, by `server.aws_ranges`.",
    )
    google_regions: tuple[str, ...] = Field(
        (),
        description="Google's regions that are near, besides the one of this name, if there is "
        "one: their machines are sent here, by `server.google_ranges`.",
    )
    nearest: tuple[str, ...] = Field(
        (),
        description="Other regions, the nearest one first: where to send who is near this one when "
        "it has no copy. Default: the order of the file.",
    )

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self
