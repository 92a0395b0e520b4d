"""Which ``.gitattributes`` may change an archive."""

NAME = b".gitattributes"

WORDS = (b"export-", b"eol", b"ident", b"encoding")
"""An attributes file without any of them changes no archive. Macros contain them, too."""
