"""How fast Archiver is, beside what people would use instead: ``python -m benchmarks``.

``topics/`` has one module per question; ``__main__`` asks them and writes the answers into
``docs/benchmarks.md``.
"""
