"""The fleet's queue, task states and index, on NATS JetStream. Nothing else imports nats-py."""
