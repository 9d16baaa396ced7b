"""An HTTP/1.1 server that says what it got: upload_pod.py ADDRESS PORT.

The answer to any POST or PUT is JSON: bytes and SHA-256 of the body, and the header fields it came with.
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Pod(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        """Its pieces, in whichever way it was sent."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            if not piece:
                raise ConnectionError("the body broke off")
            left -= len(piece)
            yield piece

    def do_POST(self):
        if self.path.endswith("/no"):
            # Before the body is asked for.
            return self.send_error(413)
        digest, size = hashlib.sha256(), 0
        for piece in self.body():
            digest.update(piece)
            size += len(piece)
        said = {"bytes": size, "sha256": digest.hexdigest(), "fields": self.headers.items(), "path": self.path}
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST

    def handle_expect_100(self):
        return self.path.endswith("/no") or super().handle_expect_100()

    def log_message(self, *_):
        pass


ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Pod).serve_forever()
