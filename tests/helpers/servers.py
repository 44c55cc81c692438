"""A small HTTP server of a folder on 127.0.0.1, which can break off, and stops by itself."""

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serve(folder, *, ranges=True, break_after=None, status=None, requests=100):
    """Yields the server; ``url``, and ``requests``: the Range header of each request so far.

    ranges: whether Range is understood. break_after: bytes after which every answer breaks off. status: an
    error for everything. requests: more of them are answered by 503, so that no test runs for ever.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self):
            self.server.requests.append(self.headers.get("Range"))
            path = Path(folder) / self.path.lstrip("/")
            if len(self.server.requests) > requests:
                return self.send_error(503)
            if status is not None:
                return self.send_error(status)
            if not path.is_file():
                return self.send_error(404)
            content = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")) if ranges else None
            start = int(asked[1]) if asked else 0
            if asked and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            stop = len(content) if break_after is None else start + break_after
            self.wfile.write(content[start:stop])
            return None

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
