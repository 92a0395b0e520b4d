"""The credentials for an Archiver server: a token in the environment, or a password in netrc."""

from __future__ import annotations

import base64
import netrc
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from archiver.client.failures import InvalidUsage

TOKEN_VARIABLE = "ARCHIVER_TOKEN"  # noqa: S105 - the name of a variable
NETRC_VARIABLE = "NETRC"

_TOKEN = re.compile(r"[!-~]*")


def find_credentials(server: str) -> str:
    """Return the Authorization header for *server*; empty if there are no credentials.

    Raises InvalidUsage if they cannot be read.
    """
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not _TOKEN.fullmatch(token):
        raise InvalidUsage(
            f"{TOKEN_VARIABLE} must be printable ASCII without spaces and ends of lines"
        )
    if token:
        return f"Bearer {token}"
    return _from_netrc(urlsplit(server).hostname or "")


def _from_netrc(host: str) -> str:
    """Return the credentials for *host*, as curl finds them with ``--netrc-optional``."""
    named = os.environ.get(NETRC_VARIABLE)
    path = Path(named) if named else Path.home() / ".netrc"
    try:
        entry = netrc.netrc(path).authenticators(host)
    except FileNotFoundError:
        return ""
    except netrc.NetrcParseError as exc:  # its text may quote a password
        raise InvalidUsage(f"{path} is no netrc file: see line {exc.lineno}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidUsage(f"{path} cannot be read ({type(exc).__name__})") from None
    if entry is None:
        return ""
    user, _, password = entry
    pair = f"{user or ''}:{password or ''}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
