"""How a host is reached: through which proxy of the environment, and whether a connection to it opens at all."""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3.util import make_headers

from ..errors import InputError, ServiceError

_LOG = logging.getLogger(__name__)
#: Seconds that the first connection of a client may take, name resolution included.
_FIRST_CONNECTION = 5.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """A proxy that the environment names.

    Attributes
    ----------
    url : str
        Without user name and password.
    headers : dict
        Those that the proxy is sent; never shown.
    """

    url: str
    headers: dict[str, str] = field(repr=False, hash=False)


def proxy_for(url: str) -> Proxy | None:
    """The proxy for a URL by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY; None for a direct connection.

    A loopback address is always connected to directly.

    Raises
    ------
    InputError
        If the environment names a proxy that is not of HTTP.
    """
    parts = urlsplit(url)
    proxies = getproxies()
    text = proxies.get(parts.scheme) or proxies.get("all")
    if not text or _is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    found = urlsplit(text if "://" in text else f"http://{text}")
    variable = f"{parts.scheme.upper()}_PROXY"
    try:
        netloc = found.netloc.rpartition("@")[2]
        port = found.port
    except ValueError:
        port = -1
    if found.scheme not in _PORTS or not found.hostname or port == -1:
        raise InputError(f"{variable} does not name an http or https proxy; write it as http://HOST:PORT")
    headers = {}
    if found.username:
        headers = make_headers(proxy_basic_auth=f"{unquote(found.username)}:{unquote(found.password or '')}")
    return Proxy(f"{found.scheme}://{netloc}", headers)


def refusal(proxy: str, scheme: str, status: int) -> ServiceError:
    """The error for a proxy that refuses with an HTTP status that is final.

    Parameters
    ----------
    proxy : str
        Host and port of the proxy.
    scheme : str
        Of the URL that was requested through it.
    status : int
    """
    variable = f"{scheme.upper()}_PROXY"
    if status == 407:
        return ServiceError(
            f"the proxy {proxy} answered with HTTP status 407: it asks for a valid user name and password; write "
            f"{variable} as http://USER:PASSWORD@HOST:PORT"
        )
    return ServiceError(
        f"the proxy {proxy} refused the connection with HTTP status {status}; check {variable}, or set NO_PROXY"
    )


def check_reachable(url: str, proxy: Proxy | None, timeout: float) -> None:
    """Open a connection to the host of a URL, or to its proxy, and close it.

    Raises
    ------
    ServiceError
        With the host and the cause, if none opens within `timeout` or 5 seconds.
    """
    parts = urlsplit(proxy.url if proxy else url)
    timeout = min(timeout, _FIRST_CONNECTION)
    cause = _cause(parts, timeout)
    if cause is None:
        return
    _LOG.info("%s was not requested: no connection to %s", url, parts.netloc)
    variable = f"{urlsplit(url).scheme.upper()}_PROXY"
    if proxy:
        raise ServiceError(f"cannot reach the proxy {parts.netloc}: {cause}; check {variable}, or set NO_PROXY")
    raise ServiceError(
        f"cannot reach {parts.netloc}: {cause}; check the network and the API URL, or set {variable} if the network "
        "needs a proxy"
    )


def _cause(parts: SplitResult, timeout: float) -> str | None:
    """Why no connection opens, or None. In a thread, since a name may take any time to resolve."""
    causes: SimpleQueue[str | None] = SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, parts.port or _PORTS[parts.scheme]), timeout).close()
            causes.put(None)
        except (socket.gaierror, UnicodeError):
            causes.put("its name is not resolved")
        except ConnectionRefusedError:
            causes.put("the connection is refused")
        except TimeoutError:
            causes.put(f"it does not answer within {timeout:g} s")
        except OSError as error:
            causes.put((error.strerror or type(error).__name__).lower())

    threading.Thread(target=connect, name="atlaszarr-first-connection", daemon=True).start()
    try:
        return causes.get(timeout=timeout)
    except Empty:
        return f"it does not answer within {timeout:g} s"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
