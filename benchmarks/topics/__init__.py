"""One module per question; ``measure(lab)`` returns the tables that answer it.

To add one, add its module here, its name to ``TOPICS``, and its markers to docs/benchmarks.md.
"""

TOPICS = (
    "pace",
    "fast",
    "conversions",
    "git",
    "complete",
    "prewarm",
    "resources",
    "latency",
    "throughput",
    "hits",
    "herd",
    "waiting",
    "busy",
    "index_size",
    "housekeeping",
    "client",
)
"""In the order of the document. A topic is imported when it runs, because requirements differ."""
