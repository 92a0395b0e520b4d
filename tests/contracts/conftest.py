"""Buckets that the tests of one module share."""

import pytest

from tests.parts.s3 import Home, S3Server


@pytest.fixture(scope="module")
def weed_home(weed: S3Server) -> Home:
    return weed.make_home()


@pytest.fixture(scope="module")
def rclone_home(rclone: S3Server) -> Home:
    return rclone.make_home()
