"""Drives the running program from outside. Imports nothing from it."""
