"""The demo: a Mercurial host, NATS, S3 and Archiver in a temporary folder, and three requests."""
