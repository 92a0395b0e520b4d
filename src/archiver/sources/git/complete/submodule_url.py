"""What the URL of a submodule means: which repository of which host.

The URL is content of a repository, and hostile. It is only compared with the templates in the
settings; no request is ever sent to it. Forms: https://git-scm.com/docs/git-clone#_git_urls, and
for relative URLs https://git-scm.com/docs/gitmodules.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from archiver.names import is_name

URL_MAX_CHARS = 2048

PLACEHOLDER = "{repo}"
GIT_ENDING = ".git"

_URL = re.compile(
    r"(https?|git|ssh|git\+ssh|ssh\+git)://(?:[^@/]*@)?(\[[^\]/]*\]|[^@/:]+)(?::([0-9]{0,5}))?/(.+)"
)
_SCP = re.compile(r"(?:[^@/:]*@)?([^@/:]+):(?!//)(.+)")
_QUERY = re.compile(r"[?#]")
_RELATIVE = ("./", "../")
_DEFAULT_PORTS = {"http": "80", "https": "443", "git": "9418", "ssh": "22"}
_ENCODED_SLASH = re.compile(r"%2f|%5c", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """A URL in parts. ``port`` is empty if it is the usual one, and where it has no meaning.

    ``is_web`` is whether the URL is of http or https. Other protocols have other ports.
    """

    host: str
    port: str
    path: str
    is_web: bool


def parse_url(url: str) -> Address | None:
    """Return the parts of an absolute URL, also in the form of scp; None for any other text."""
    if len(url) > URL_MAX_CHARS or url.startswith("-") or not url.isprintable():
        return None
    if match := _URL.fullmatch(url):
        scheme, host, port, path = match.groups()
        is_web = scheme.startswith("http")
        usual = {"", _DEFAULT_PORTS.get(scheme if is_web or scheme == "git" else "ssh")}
        return _address(host, "" if (port or "") in usual else port, path, is_web=is_web)
    if "://" not in url and (match := _SCP.fullmatch(url)):
        host, path = match.groups()
        return _address(host, "", path, is_web=False)
    return None


def _address(host: str, port: str, path: str, *, is_web: bool) -> Address | None:
    if "?" in path or "#" in path or _ENCODED_SLASH.search(path):
        return None
    return Address(host.lower(), port, unquote(path).strip("/"), is_web)


def resolve_url(url: str, base: str) -> str:
    """Return *url* as it is or, if it is relative, below *base*, the URL of the superproject.

    As git does: each ``../`` removes the last segment of *base*.
    """
    if not url.startswith(_RELATIVE):
        return url
    base = base.rstrip("/")
    while url.startswith(_RELATIVE):
        if url.startswith("../"):
            base, slash, _ = base.rpartition("/")
            if not slash or base.endswith((":", "/")):
                return ""  # it leads out of the host
            url = url[3:]
        else:
            url = url[2:]
    return f"{base}/{url}".rstrip("/")


class RepoTemplate:
    """Finds the repo that an address means, by a template with one ``{repo}``.

    With *any_protocol*, the addresses of other protocols match as well, whatever their port: git
    hosts have the same paths for ssh as for https.
    """

    def __init__(self, template: str, *, any_protocol: bool) -> None:
        before, _, after = template.partition(PLACEHOLDER)
        address = parse_url(f"{before}{_MARK}{after}")
        if address is None:
            raise ValueError("must be a URL, or in the form host:path, with {repo} in its path")
        start, mark, self._end = address.path.partition(_MARK)
        if not mark:
            raise ValueError("must have {repo} in its path")
        self._start = start
        self._address = address
        self._any_protocol = any_protocol

    def repos(self, address: Address) -> tuple[str, ...]:
        """Return the repo of *address*, with and without ``.git`` at its end, the likelier first.

        Empty if the template does not match.
        """
        if not self._matches_host(address) or not address.path.startswith(self._start):
            return ()
        rest = address.path[len(self._start) :]
        if self._end in {"", GIT_ENDING}:
            bare = rest.removesuffix(GIT_ENDING)
            found = [bare] if self._end or bare == rest else [bare, rest]
        else:
            found = [rest.removesuffix(self._end)] if rest.endswith(self._end) else []
        return tuple(repo for repo in found if is_name(repo))

    def _matches_host(self, address: Address) -> bool:
        ours = self._address
        if address.host != ours.host:
            return False
        if address.is_web == ours.is_web:
            return address.port == ours.port
        return self._any_protocol


_MARK = "archiver-repo-placeholder"


def plain_url(url: str) -> str:
    """Return *url* in printable characters, without a query and what may be credentials."""
    scheme, separator, rest = url[:URL_MAX_CHARS].rpartition("://")
    rest = rest.rpartition("@")[2]
    address = _QUERY.split(rest, maxsplit=1)[0]
    plain = f"{scheme}{separator}{address}{'…' if address != rest else ''}"
    return plain if plain.isprintable() else ascii(plain)[1:-1]
