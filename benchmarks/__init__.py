"""Benchmarks of Archiver and its alternatives: ``python -m benchmarks``.

``topics/`` has one module per question. ``__main__`` runs them and writes their tables into
``docs/benchmarks.md``.
"""
