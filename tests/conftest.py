"""The real parts that tests may ask for, one module each in ``tests/parts``."""

import os

from hypothesis import settings

# A machine may be busy, so no example has to end within a certain time.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# No test needs an authority of the system. To read them takes 30 ms of CPU for each new client.
os.environ["SSL_CERT_FILE"] = os.devnull

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
