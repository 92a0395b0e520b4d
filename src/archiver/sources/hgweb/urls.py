"""Addresses of one hgweb, built from the source's URL template."""

from urllib.parse import quote

from archiver.model import Archive, Node


class HgwebUrls:
    """The template up to ``{repo}`` is the address of a repository."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._repo_template = template[: template.index("{repo}") + len("{repo}")]

    def archive(self, archive: Archive) -> str:
        """Return the address by the node's first 12 digits: hgweb names the root after them."""
        parts = {
            "{repo}": quote_path(archive.repo),
            "{rev}": archive.node[:12],
            "{suffix}": quote_path(archive.suffix),
            "{subdir}": quote_path(archive.subdir),
        }
        url = self._template
        for placeholder, value in parts.items():
            url = url.replace(placeholder, value)
        return url if archive.subdir else url.removesuffix("/")

    def repo(self, repo: str) -> str:
        return self._repo_template.replace("{repo}", quote_path(repo))

    def listing(self, repo: str, node: Node, folder: bytes) -> str:
        path = quote(folder.rstrip(b"/"), safe="/")
        return f"{self.repo(repo)}/json-manifest/{node}/{path}"


def quote_path(path: str) -> str:
    return "/".join(quote(segment, safe="") for segment in path.split("/"))
