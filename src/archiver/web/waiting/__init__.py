"""Requests that wait for an archive: how many may, how long, and what wakes them."""
