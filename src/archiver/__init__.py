"""Archiver: the address of a repository archive in, the place of the same archive in S3 out."""

__version__ = "0.1.0"
