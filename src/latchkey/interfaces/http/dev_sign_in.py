"""Sign-in with `--dev`: which requests for the console get a token, so that a developer need not paste one.

Only the console's own page may read the token: no page of another origin, no client on another machine, and on Linux no
other user of this machine.
"""

import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from litestar.types import HTTPScope

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip")
_CONNECTIONS = {4: Path("/proc/net/tcp"), 6: Path("/proc/net/tcp6")}
"""Linux: the TCP connections of this machine with the users that own them."""
_LOCAL, _REMOTE, _UID = 1, 2, 7
"""Columns of these files (proc(5))."""
_ROOT = 0
_WORD = 4

Address = tuple[str, int]


class DevSignIn:
    """Issues tokens for the page of a developer on this machine.

    - `issue`: returns a new token.
    - `uid`: the user of this process.
    """

    def __init__(self, issue: Callable[[], str], uid: int) -> None:
        self._issue = issue
        self._uid = uid

    def token_for(self, scope: HTTPScope) -> str | None:
        """Return a token if the request comes from this developer's browser, and was made for this page."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not (_is_direct(headers) and _is_for_own_page(headers)):
            return None
        client, server = scope["client"], scope.get("server")
        if client is None or server is None or server[1] is None:
            return None
        return self._issue() if self._is_own_user(client, (server[0], server[1])) else None

    def _is_own_user(self, client: Address, server: Address) -> bool:
        """Whether the connection belongs to the user of this process, or to root, who can read the signing key.

        True on a system that does not list its connections.
        """
        if not (ip_address(client[0]).is_loopback and ip_address(server[0]).is_loopback):
            return False
        owners = _connection_owners(ip_address(server[0]).version)
        ends = _as_listed(client), _as_listed(server)
        if ends[::-1] not in owners:
            return not owners
        return owners.get(ends) in {self._uid, _ROOT}


def _is_direct(headers: dict[bytes, str]) -> bool:
    """Whether the address bar has a loopback name, and no proxy or tunnel forwards the request from elsewhere."""
    name, _, port = headers.get(b"host", "").lower().rpartition(":")
    host = name if port.isdecimal() and name else headers.get(b"host", "").lower()
    return host in _LOOPBACK_NAMES and not any(name in headers for name in _FORWARDED)


def _is_for_own_page(headers: dict[bytes, str]) -> bool:
    """Whether the response will be this page, or be read by it: no script of another page may read it.

    Browsers set `Origin` and `Sec-Fetch-*` themselves (Fetch standard; Fetch Metadata). A page of another origin, such
    as another port of this machine, can navigate here, but then it cannot read the response.
    """
    if headers.get(b"sec-fetch-site") in {"same-origin", "none"}:
        return True
    is_navigation = headers.get(b"sec-fetch-mode") in {None, "navigate"} and (
        headers.get(b"sec-fetch-dest") in {None, "document"}
    )
    return is_navigation and b"origin" not in headers


def _connection_owners(ip_version: int) -> dict[tuple[str, str], int]:
    """Return the user ids of TCP connections by their local and remote address; none if the system lists none."""
    try:
        lines = _CONNECTIONS[ip_version].read_text("ascii").splitlines()[1:]
    except OSError:
        return {}
    rows = (line.split() for line in lines)
    return {(row[_LOCAL], row[_REMOTE]): int(row[_UID]) for row in rows}


def _as_listed(address: Address) -> str:
    """Return an address as Linux lists it: words of four bytes in the byte order of the machine, then the port."""
    packed = ip_address(address[0]).packed
    words = [packed[start : start + _WORD] for start in range(0, len(packed), _WORD)]
    ordered = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return f"{ordered.hex().upper()}:{address[1]:04X}"
