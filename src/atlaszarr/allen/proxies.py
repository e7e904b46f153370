"""The HTTP proxies that the environment names."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3.util import make_headers

from ..errors import InputError, ServiceError


@dataclass(frozen=True)
class Proxy:
    """A proxy of the environment.

    Attributes
    ----------
    url : str
        Without user name and password.
    headers : dict
        Headers with the user name and password; excluded from the repr.
    """

    url: str
    headers: dict[str, str] = field(repr=False, hash=False)


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; None for a direct connection.

    Connections to loopback addresses are always direct.

    Raises
    ------
    InputError
        If the environment names a proxy that is not an HTTP proxy.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text or _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    proxy = urlsplit(text if "://" in text else f"http://{text}")
    try:
        _ = proxy.port
        valid = proxy.scheme in ("http", "https") and bool(proxy.hostname)
    except ValueError:  # the port is not a number
        valid = False
    if not valid:
        raise InputError(
            f"{parts.scheme.upper()}_PROXY does not name an http or https proxy; write it as http://HOST:PORT",
            code="invalid-proxy",
        )
    headers = {}
    if proxy.username:
        headers = make_headers(proxy_basic_auth=f"{unquote(proxy.username)}:{unquote(proxy.password or '')}")
    return Proxy(f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}", headers)


def proxy_error(proxy: str, scheme: str, status: int) -> ServiceError:
    """The error for a proxy (host and port) that answers a request for a URL of `scheme` with a final HTTP status."""
    variable = f"{scheme.upper()}_PROXY"
    if status == 407:
        return ServiceError(
            f"the proxy {proxy} answered with HTTP status 407: it needs a valid user name and password; set "
            f"{variable} to http://USER:PASSWORD@HOST:PORT",
            code="proxy-authentication",
        )
    return ServiceError(
        f"the proxy {proxy} refused the connection with HTTP status {status}; check {variable}, or set NO_PROXY",
        code="proxy-refused",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
