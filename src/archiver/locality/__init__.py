"""The regions that are close to a client."""
