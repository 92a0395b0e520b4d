"""The original's way of answering, written anew: ask S3, presign, redirect, remember nothing.

``gunicorn "benchmarks.original:create_app()"``. The bucket is in ``BENCH_BUCKET``, as JSON: what
``boto3.client`` takes, and ``bucket`` and ``key``.
"""

import json
import os

import boto3
import flask
import flask.typing

EXPIRES_S = 900


def create_app() -> flask.Flask:
    bucket = json.loads(os.environ["BENCH_BUCKET"])
    name, key = bucket.pop("bucket"), bucket.pop("key")
    client = boto3.client("s3", **bucket)

    def archive(repo: str, rev: str) -> flask.typing.ResponseReturnValue:
        """Ask as boto 2's ``get_bucket`` and ``get_key`` do. Every archive is the same one."""
        del repo, rev
        client.head_bucket(Bucket=name)
        client.head_object(Bucket=name, Key=key)
        url = client.generate_presigned_url(
            "get_object", Params={"Bucket": name, "Key": key}, ExpiresIn=EXPIRES_S
        )
        return flask.redirect(url, code=302)

    app = flask.Flask(__name__)
    app.add_url_rule("/archiver/hgmo/<path:repo>/<rev>", view_func=archive)
    return app
