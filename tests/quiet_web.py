"""Web servers that list no folder, as public buckets."""

import http.server
import threading
from contextlib import contextmanager
from functools import partial


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server that does not list folders."""

    missing = 404

    def log_message(self, *_):
        pass

    def list_directory(self, _):
        self.send_error(404)

    def send_error(self, code, *more):
        super().send_error(self.missing if code == 404 else code, *more)


class Forbidding(Quiet):
    """Answers 403 for a missing file, like a public bucket that must not be listed."""

    missing = 403


@contextmanager
def web(folder, handler=Quiet):
    """Serve a folder, and yield its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
