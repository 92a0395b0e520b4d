"""Alternatives to Archiver, and single steps of Archiver."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import boto3

from benchmarks.inputs import Input
from benchmarks.lab import Bucket
from benchmarks.programs import TIMEOUT_S, run
from tests.system.stack import Stack, binary

KEY = "rivals/archive.tar.gz"


def download(url: str, target: Path = Path(os.devnull)) -> float:
    """Download with curl, and return the seconds. To /dev/null, this is the host's own time."""
    return run(["curl", "--fail", "--silent", "--noproxy", "*", "--output", target, url])


def download_then_upload(url: str, buckets: Sequence[Bucket], spool: Path) -> float:
    """Download to a file, then upload it with the AWS SDK to one region after the other."""
    taken = download(url, spool)
    started = time.monotonic()
    for bucket in buckets:
        client = boto3.client(
            "s3",
            endpoint_url=bucket.endpoint,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key_id,
            aws_secret_access_key=bucket.secret_access_key,
        )
        client.upload_file(str(spool), bucket.bucket, KEY)
    taken += time.monotonic() - started
    spool.unlink()
    return taken


def copy_url(url: str, buckets: Sequence[Bucket]) -> float:
    """Run ``rclone copyurl`` once per region; each downloads from the host."""
    return sum(
        run(
            [
                *(
                    binary("rclone"),
                    "copyurl",
                    "--quiet",
                    "--config",
                    os.devnull,
                    "--s3-no-check-bucket",
                ),
                *(url, f":s3:{bucket.bucket}/{KEY}"),
            ],
            env={
                **os.environ,
                "RCLONE_S3_PROVIDER": "Other",
                "RCLONE_S3_ENDPOINT": bucket.endpoint,
                "RCLONE_S3_REGION": bucket.region,
                "RCLONE_S3_ACCESS_KEY_ID": bucket.access_key_id,
                "RCLONE_S3_SECRET_ACCESS_KEY": bucket.secret_access_key,
            },
        )
        for bucket in buckets
    )


def pipe(url: str, buckets: Sequence[Bucket]) -> float:
    """Copy to each region, then test the archive, with programs instead of Archiver."""
    taken = copy_url(url, buckets)
    stored = buckets[0].path(KEY)
    return taken + run(["gzip", "--test", stored]) + run(["tar", "--list", "--file", stored])


def verify_alone(archive: Input) -> float:
    """Verify from the page cache on one core, and return the seconds."""
    return _alone("verify", *map(str, archive.pieces))


def upload_alone(archive: Input, stack: Stack) -> float:
    """Upload from the page cache to all regions at once, and return the seconds."""
    return _alone("upload", stack.env["ARCHIVER_REGIONS"], *map(str, archive.pieces))


def _alone(*words: str) -> float:
    command = [sys.executable, "-m", "benchmarks.alone", *words]
    ended = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    return float(ended.stdout)
