"""Settings of one region."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from archiver.settings.section import CaFile, HttpUrl, Network, SecretFile, Section, read_secret


class RegionSettings(Section):
    """One region: one bucket."""

    bucket: str = Field(min_length=3, max_length=63)
    """Name of the bucket."""
    endpoint: HttpUrl | None = None
    """URL of an S3 server other than AWS. Default: AWS, in this region."""
    public_endpoint: HttpUrl | None = None
    """URL at which clients reach the same S3 server. Presigned URLs are signed for it. Only
    `archiver doctor` sends requests there. Default: `endpoint`.
    """
    aws_region: str | None = None
    """Region to sign requests for. Default: the name of this region."""
    access_key_id: str | None = None
    """Access key. Default: from the environment or the machine's role."""
    access_key_id_file: SecretFile | None = None
    """File with the access key, instead of `access_key_id`. Read when a process starts."""
    secret_access_key: SecretStr | None = None
    """Secret key of `access_key_id`."""
    secret_access_key_file: SecretFile | None = None
    """File with the secret key, instead of `secret_access_key`. Read when a process starts."""
    ca_file: CaFile | None = None
    """PEM file with certificate authorities to trust besides the system's, for `endpoint`."""
    virtual_hosted: bool = False
    """Whether the bucket's name is part of the host name instead of the path."""
    networks: tuple[Network, ...] = ()
    """Networks whose clients are near this region. The smallest network that contains a client
    decides. These networks override the published networks of clouds.
    """
    aws_regions: tuple[str, ...] = ()
    """AWS regions near this one, besides `aws_region`. Their machines are redirected here: see
    `server.aws_ranges`.
    """
    google_regions: tuple[str, ...] = ()
    """Google regions near this one, besides the one of the same name. Their machines are redirected
    here: see `server.google_ranges`.
    """
    nearest: tuple[str, ...] = ()
    """Other regions, nearest first: where to redirect clients near this region if it has no copy.
    Default: the order of the file.
    """

    @model_validator(mode="after")
    def _keys_go_together(self) -> Self:
        if self.secret_access_key is not None and self.secret_access_key_file:
            raise ValueError(
                "secret_access_key_file: must not be set together with secret_access_key"
            )
        has_secret = self.secret_access_key is not None or self.secret_access_key_file is not None
        if self.access_key_id is not None and self.access_key_id_file:
            raise ValueError("access_key_id_file: must not be set together with access_key_id")
        has_id = self.access_key_id is not None or self.access_key_id_file is not None
        if has_id != has_secret:
            raise ValueError("access_key_id and secret_access_key go together")
        return self

    def read_access_key_id(self) -> str | None:
        """Return the access key, if there is one. Reads ``access_key_id_file``."""
        if self.access_key_id_file:
            return read_secret(self.access_key_id_file)
        return self.access_key_id

    def read_secret_access_key(self) -> str | None:
        """Return the secret key, if there is one. Reads ``secret_access_key_file``."""
        if self.secret_access_key_file:
            return read_secret(self.secret_access_key_file)
        return self.secret_access_key.get_secret_value() if self.secret_access_key else None
