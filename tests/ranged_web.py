"""A web server of files that sends ranges and ETags as a bucket does, counts what it sent, and has faults."""

import hashlib
import http.server
import re
import threading
from collections import defaultdict
from contextlib import contextmanager
from itertools import pairwise


class Files:
    """What a server has and has done.

    Attributes
    ----------
    bodies : dict
        Files by path without a leading slash.
    sent : dict
        For each path, the intervals (start, stop) of the bodies of whole answers.
    faults : list
        Functions of (path, body of the answer), each of the next answer to a file: what it returns is sent instead, a
        status for a number.
    now, peak : int
        Answers under way, and the most of them at a time.
    ranges : bool
        Whether the server sends parts of files.
    """

    def __init__(self, bodies, ranges=True):
        self.bodies, self.ranges = dict(bodies), ranges
        self.sent = defaultdict(list)
        self.now = self.peak = 0
        self.faults = []

    def twice(self):
        """The paths of which a byte was sent twice."""
        found = set()
        for path, intervals in self.sent.items():
            ordered = sorted(intervals)
            found |= {path for a, b in pairwise(ordered) if b[0] < a[1]}
        return found

    def count(self, suffix=""):
        """Bytes sent of the files that end in a suffix."""
        return sum(b - a for path, parts in self.sent.items() if path.endswith(suffix) for a, b in parts)


@contextmanager
def serving(bodies, ranges=True):
    """Serve files, and yield (URL, Files)."""
    files = Files(bodies, ranges)
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            with lock:
                files.now += 1
                files.peak = max(files.peak, files.now)
            try:
                self._answer()
            finally:
                with lock:
                    files.now -= 1

        def _answer(self):
            path = self.path.lstrip("/")
            with lock:
                fault = files.faults.pop(0) if files.faults else None
                body = files.bodies.get(path)
            if body is None:
                return self._status(404)
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if files.ranges else None
            start, stop = (int(asked[1]), min(int(asked[2]) + 1, len(body))) if asked else (0, len(body))
            part = body[start:stop]
            if fault is not None:
                part = fault(path, part)
                if isinstance(part, int):
                    return self._status(part)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if len(part) < stop - start:
                self.close_connection = True
            else:  # before the client has it
                with lock:
                    files.sent[path].append((start, stop))
            self.wfile.write(part)
            return None

        def _status(self, status):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", files
        finally:
            server.shutdown()
            thread.join()
