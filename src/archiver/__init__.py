"""Archiver: the address of a repository archive in, the place of the same archive in S3 out."""

from importlib.metadata import version

__version__ = version("archiver")
