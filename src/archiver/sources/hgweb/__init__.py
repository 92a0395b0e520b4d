"""Adapter for hgweb, Mercurial's own web server, as hg.mozilla.org runs it. Start at ``source``."""
