"""A file server on this machine with the manners and the failures of real ones."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class FileServer:
    """What the server sends, how it behaves, and what it was asked.

    Attributes:
        content: the file.
        etag: its entity tag; None for a server that gives none.
        ranges: whether it understands Range.
        cut_after: close the connection after so many bytes of the body.
        status: answer with this error instead.
        content_type: of the answer.
        asked: the Range header of each request, None where there was none.
        url: address of the file.
        moved_url: address that redirects to it.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    cut_after: int | None = None
    status: int | None = None
    content_type: str = "application/octet-stream"
    asked: list[str | None] = field(default_factory=list)
    url: str = ""

    @property
    def moved_url(self) -> str:
        return self.url.replace("weights.pt", "moved.pt")


@contextlib.contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Serve on a free port of 127.0.0.1 while the block runs; `server.url` is then the address of the file."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/moved.pt":
                self.send_response(302)
                self.send_header("Location", server.url)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server.asked.append(self.headers.get("Range"))
            if server.status is not None:
                self.send_error(server.status)
                return
            start = self._first_byte()
            if start is None:
                self.send_error(416)
                return
            body = server.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", server.content_type)
            self.send_header("Content-Length", str(len(body)))
            if start:
                whole = len(server.content)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            if server.etag is not None:
                self.send_header("ETag", server.etag)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body if server.cut_after is None else body[: server.cut_after])

        def _first_byte(self) -> int | None:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            if not server.ranges or asked is None or self.headers.get("If-Range") != server.etag:
                return 0
            return int(asked[1]) if int(asked[1]) < len(server.content) else None

        def log_message(self, *args):
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        server.url = f"http://127.0.0.1:{httpd.server_port}/weights.pt"
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
