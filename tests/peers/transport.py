"""Sends what a client addresses to the Allen Institute's hosts to the emulator instead.

It works below the client, where a request leaves the process: under `requests` in place of its HTTP adapter,
under `urllib` as a step of its opener. The client's own code, its URLs included, is what its users run. Any
other host is refused, so that nothing here can come from the network; and nothing here knows what is asked.
"""

from urllib.parse import urlsplit, urlunsplit
from urllib.request import BaseHandler, ProxyHandler, build_opener, install_opener

import requests
from requests.adapters import HTTPAdapter

ALLEN_HOSTS = {"api.brain-map.org"}


class Redirect:
    """From construction on, every request of this process to an Allen host goes to the server at `api_url`."""

    def __init__(self, api_url: str) -> None:
        self._server = urlsplit(api_url)
        self.sent: list[str] = []
        """The URLs as the client wrote them, in order."""

        adapter = _Adapter(self)
        requests.Session.get_adapter = lambda _session, url: adapter  # noqa: ARG005
        install_opener(build_opener(ProxyHandler({}), _OpenerStep(self)))

    def __call__(self, url: str) -> str:
        """The same request at the emulator."""
        parts = urlsplit(url)
        if parts.hostname not in ALLEN_HOSTS:
            raise ConnectionError(f"{url} is not at {' or '.join(sorted(ALLEN_HOSTS))}: nothing else is served here")
        self.sent.append(url)
        return urlunsplit(parts._replace(scheme=self._server.scheme, netloc=self._server.netloc))


class _Adapter(HTTPAdapter):
    def __init__(self, redirect: Redirect) -> None:
        super().__init__()
        self._redirect = redirect

    def send(self, request, **options):
        request.url = self._redirect(request.url)
        return super().send(request, **{**options, "proxies": {}})


class _OpenerStep(BaseHandler):
    handler_order = 0  # before the handlers that read the host off the request

    def __init__(self, redirect: Redirect) -> None:
        self._redirect = redirect

    def http_request(self, request):
        request.full_url = self._redirect(request.full_url)
        return request

    https_request = http_request
