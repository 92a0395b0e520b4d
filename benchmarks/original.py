"""The algorithm of the original service: query S3, presign, redirect, cache nothing.

``gunicorn "benchmarks.original:create_app()"``. ``BENCH_BUCKET`` has, as JSON, the arguments of
``boto3.client``, and ``bucket`` and ``key``.
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
        """Send the requests of boto 2's ``get_bucket`` and ``get_key``, always for one key."""
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
