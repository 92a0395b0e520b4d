"""The real parts that tests may ask for, one module each in ``tests/parts``."""

pytest_plugins = [
    "tests.parts.git_host",
    "tests.parts.git_processes",
    "tests.parts.hgweb",
    "tests.parts.lenient_wsgi",
    "tests.parts.log",
    "tests.parts.nats",
    "tests.parts.fleet",
    "tests.parts.queue_backends",
    "tests.parts.s3",
    "tests.parts.secured_nats",
]
