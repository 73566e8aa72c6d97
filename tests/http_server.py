"""Serve files on loopback with a set latency and failure rate, to test remote stores.

with serve(folder, latency=0.05, failure_rate=0.05) as server:
    open_dataset(f"{server.url}/era5.zarr", ["z500"])
"""

import contextlib
import http
import http.server
import mimetypes
import random
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from pathlib import Path


class Server:
    """A running server.

    Attributes
    ----------
    url
        Address of the folder: `"http://127.0.0.1:54321"`.
    requests
        Number of requests so far.
    by_status, paths
        Number of requests for each outcome, and for each path.
    failures
        Number of requests that failed on purpose.
    most_at_once
        The largest number of requests that waited for their answers at the same time.
    """

    def __init__(self, folder: Path, latency: float, failure_rate: float, seed: int, failure_modes: Sequence[str]):
        self.folder = folder
        self.latency = latency
        self.failure_rate = failure_rate
        self.seed = seed
        self.failure_modes = failure_modes
        self.by_status: Counter[str] = Counter()
        self.paths: Counter[str] = Counter()
        self.failures = 0
        self.most_at_once = 0
        self._waiting = 0
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._http = _HTTPServer(("127.0.0.1", 0), _Handler)
        self._http.owner = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def requests(self) -> int:
        """Number of requests so far."""
        return sum(self.by_status.values())

    def stop(self) -> None:
        """Stop the server: close all connections and refuse new ones."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()
            self._http.cut_connections()

    def _outcome(self, request: str) -> str:
        """Return the outcome of a request: the same for the same attempt of the same request, in any order."""
        with self._lock:
            self._attempts[request] += 1
            chance = random.Random(f"{self.seed} {request} {self._attempts[request]}")
            if chance.random() >= self.failure_rate:
                return "answered"
            self.failures += 1
            return chance.choice(self.failure_modes)

    def _wait(self) -> None:
        with self._lock:
            self._waiting += 1
            self.most_at_once = max(self.most_at_once, self._waiting)
        time.sleep(self.latency)
        with self._lock:
            self._waiting -= 1

    def _count(self, path: str, status: str) -> None:
        with self._lock:
            self.paths[path] += 1
            self.by_status[status] += 1


@contextlib.contextmanager
def serve(
    folder: str | Path,
    latency: float = 0.0,
    failure_rate: float = 0.0,
    seed: int = 0,
    failure_modes: Sequence[str] = ("unavailable", "truncated", "dropped"),
) -> Iterator[Server]:
    """Serve the files of a folder; GET with ranges, and HEAD.

    Parameters
    ----------
    folder
        Folder to serve.
    latency
        Seconds before the first byte of each answer; requests wait in parallel.
    failure_rate
        Share of the requests that fail. A repeated request may succeed.
    seed
        Seed of the failures.
    failure_modes
        How requests fail: "unavailable" (status 503), "truncated" (half of the body), or "dropped" (the server closes
        the connection without an answer).
    """
    server = Server(Path(folder), latency, failure_rate, seed, failure_modes)
    try:
        yield server
    finally:
        server.stop()


class _HTTPServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # of connections that wait to be accepted
    owner: Server

    def __init__(self, *args):
        super().__init__(*args)
        self._connections: set[socket.socket] = set()

    def get_request(self):
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request):
        self._connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self):
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        # a client that disconnects early is not an error of the server
        if not isinstance(sys.exception(), OSError | ValueError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, body: bool) -> None:
        server = self.server.owner
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/")
        byte_range = self.headers.get("Range", "")
        server._wait()
        outcome = server._outcome(f"{self.command} {path} {byte_range}")
        if outcome == "dropped":
            server._count(path, outcome)
            self.close_connection = True
            return
        if outcome == "unavailable":
            self._send(path, http.HTTPStatus.SERVICE_UNAVAILABLE, {}, b"try again", body)
            return
        file = server.folder / path
        if not file.resolve().is_relative_to(server.folder.resolve()) or not file.is_file():
            self._send(path, http.HTTPStatus.NOT_FOUND, {}, b"there is no such file", body)
            return
        data = file.read_bytes()
        stat = file.stat()
        headers = {
            "Content-Type": mimetypes.guess_type(file.name)[0] or "application/octet-stream",
            "Accept-Ranges": "bytes",
            "Last-Modified": formatdate(stat.st_mtime, usegmt=True),
            "ETag": f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"',
        }
        status = http.HTTPStatus.OK
        if byte_range:
            first, stop = _parse_range(byte_range, len(data))
            if first >= stop:
                headers = {"Content-Range": f"bytes */{len(data)}"}
                self._send(path, http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, b"", body)
                return
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(data)}"
            data, status = data[first:stop], http.HTTPStatus.PARTIAL_CONTENT
        self._send(path, status, headers, data, body, cut=outcome == "truncated")

    def _send(self, path, status, headers, data, body, cut=False) -> None:
        # before sending: a client with the answer may check the count
        self.server.owner._count(path, "truncated" if cut else str(status.value))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        if body and data:
            # in one packet with the headers: two small packets would wait for each other
            self._headers_buffer.append(b"\r\n" + (data[: len(data) // 2] if cut else data))
            self.flush_headers()
        else:
            self.end_headers()
        self.close_connection = self.close_connection or cut


def _parse_range(header: str, size: int) -> tuple[int, int]:
    """Return the first requested byte and the one after the last."""
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", header).groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1, size) if last else size
