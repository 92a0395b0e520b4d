"""Adapters for version-control hosts, and the guarded requests that they send."""
