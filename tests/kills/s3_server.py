"""moto's S3 on loopback; a process has one application, so that its servers share their buckets."""

from __future__ import annotations

from functools import cache

from moto.moto_server.werkzeug_app import create_backend_app
from moto.server import ThreadedMotoServer

__all__ = ["S3Server"]

#: Not moto's dispatcher of services, which lists the folder of the package for each request.
_application = cache(create_backend_app)


class S3Server(ThreadedMotoServer):
    """A server of S3, as a context manager, that listens on a port of its own.

    Parameters
    ----------
    port : int
        0 for any free one.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(ip_address="127.0.0.1", port=port, verbose=False)

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it."""
        super().start()
        self._server.app = _application("s3")

    @property
    def url(self) -> str:
        """The address, for the option ``endpoint_url``."""
        host, port = self.get_host_and_port()
        return f"http://{host}:{port}"
