"""Which region is close to a client."""
