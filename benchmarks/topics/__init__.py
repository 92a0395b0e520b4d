"""One module per question: ``measure(lab)`` returns the tables that answer it."""

TOPICS = ("pace", "fast", "resources", "latency")
"""In the order of the document. Each is imported when it is asked for: not all need the same."""
