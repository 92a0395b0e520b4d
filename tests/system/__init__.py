"""Tests of the running program, which they do not import."""
