"""Mercurial's own web server, as hg.mozilla.org runs it."""
