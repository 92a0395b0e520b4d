"""Adapter for git hosts, through git's smart HTTP protocol, version 2. Start at ``source``."""
