"""An HTTP/1.1 client over plain sockets that sends exactly the bytes it was told to and tidies nothing.

Client libraries normalise paths, merge headers, follow redirects and hide surplus bytes. The behaviours under
test are about those very things, so every request here is built by hand and every answer is read strictly.
"""

import itertools
import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60
# A peer that answers early and then closes must not make a large send look like a failure.
SEND_PIECE_BYTES = 64 * 1024


class Broken(Exception):
    """The peer closed too early, fell silent, or sent something that is not HTTP."""


@dataclass
class Response:
    """One answer as it was on the wire. `surplus` holds bytes that came after its end."""

    status: int
    headers: list
    body: bytes
    surplus: bytes = b""
    interim: list = field(default_factory=list)

    def header(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def json(self):
        return json.loads(self.body)

    def codes(self):
        """The specification's error codes in the body, or none if the body is something else."""
        try:
            return [error["code"] for error in self.json()["errors"]]
        except (ValueError, KeyError, TypeError):
            return []

    def location(self):
        """The Location as a request target, whatever host it names."""
        location = self.header("Location")
        if location is None:
            raise Broken(f"no Location in {self}")
        return target_of(location)

    def __str__(self):
        return f"{self.status} {self.codes() or ''}".strip()


def target_of(url):
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


def with_query(target, query):
    return f"{target}{'&' if '?' in target else '?'}{query}"


class Connection:
    """One TCP connection to one endpoint; requests and answers in the order the caller wants."""

    def __init__(self, endpoint, timeout=TIMEOUT_SECONDS):
        self.endpoint = endpoint
        self.timeout = timeout
        self.socket = socket.create_connection(endpoint, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, payload):
        """Sends until done or until the peer answers or closes; says whether everything went out."""
        view = memoryview(payload)
        deadline = time.monotonic() + self.timeout
        poller = select.poll()
        poller.register(self.socket, select.POLLIN | select.POLLOUT)
        while view:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Broken("the peer stopped reading")
            # Not select(): it knows no descriptor above 1,023.
            events = sum(event for _, event in poller.poll(left * 1000))
            if events & ~select.POLLOUT:
                return False
            if events:
                try:
                    view = view[self.socket.send(view[:SEND_PIECE_BYTES]):]
                except (BrokenPipeError, ConnectionResetError):
                    return False
        return True

    def abort(self):
        """Closes with a reset, as a client that died would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.socket.close()

    def _more(self):
        try:
            piece = self.socket.recv(1 << 18)
        except TimeoutError as error:
            raise Broken(f"no answer within {self.timeout} s") from error
        except ConnectionError as error:
            raise Broken(f"connection lost: {error}") from error
        if not piece:
            raise Broken("connection closed before the answer was complete")
        self.buffer += piece

    def _line(self):
        while b"\r\n" not in self.buffer:
            self._more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def _exactly(self, count):
        pieces, have = [self.buffer], len(self.buffer)
        while have < count:
            self.buffer = b""
            self._more()
            pieces.append(self.buffer)
            have += len(self.buffer)
        data = b"".join(pieces)
        self.buffer = data[count:]
        return data[:count]

    def _head(self):
        status_line = self._line()
        parts = status_line.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise Broken(f"not an HTTP answer: {status_line[:80]!r}")
        headers = []
        while line := self._line():
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
        return Response(int(parts[1]), headers, b"")

    def read(self, method="GET"):
        """Reads one final answer, remembering interim ones."""
        interim = []
        while (response := self._head()).status < 200:
            interim.append(response.status)
        response.interim = interim
        if method == "HEAD" or response.status in (204, 304):
            return response
        if "chunked" in (response.header("Transfer-Encoding") or "").lower():
            response.body = self._chunks()
        elif (length := response.header("Content-Length")) is not None:
            response.body = self._exactly(int(length))
        else:
            response.body = self.rest()
        return response

    def _chunks(self):
        pieces = []
        while size := int(self._line().split(";")[0], 16):
            pieces.append(self._exactly(size))
            self._exactly(2)
        while self._line():
            pass
        return b"".join(pieces)

    def rest(self):
        """Everything until the peer closes."""
        while True:
            try:
                self._more()
            except Broken:
                data, self.buffer = self.buffer, b""
                return data


def encode_chunks(pieces):
    """A body in chunked transfer coding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


class Client:
    """Sends each request over a connection of its own, round robin over the endpoints."""

    def __init__(self, urls, timeout=TIMEOUT_SECONDS):
        self.endpoints = [(urlsplit(url).hostname, urlsplit(url).port or 80) for url in urls]
        self.timeout = timeout
        self.answers = []
        self._turns = itertools.count()
        self._lock = threading.Lock()

    def next_endpoint(self):
        with self._lock:
            return self.endpoints[next(self._turns) % len(self.endpoints)]

    def connect(self, endpoint=None):
        return Connection(endpoint or self.next_endpoint(), self.timeout)

    def request(self, method, target, headers=(), body=None, pieces=None, endpoint=None, host=None):
        """`body` goes with a Content-Length, `pieces` (a list) in chunked coding."""
        endpoint = endpoint or self.next_endpoint()
        head = build_head(method, target, host or f"{endpoint[0]}:{endpoint[1]}", headers, body, pieces)
        payload = head + (encode_chunks(pieces) if pieces is not None else body or b"")
        with self.connect(endpoint) as connection:
            connection.send(payload)
            response = connection.read(method)
            if method == "HEAD":
                response.surplus = connection.rest()
        self.answers.append((method, target, response))
        return response

    def endless(self, method, target, headers, piece, most_bytes, endpoint=None):
        """Sends a chunked body that never ends, until the peer has answered and closed; gives the answer and the bytes.

        Broken, when `most_bytes` went out and the connection still takes more."""
        endpoint, sent = endpoint or self.next_endpoint(), 0
        head = build_head(method, target, f"{endpoint[0]}:{endpoint[1]}",
                          {**headers, "Transfer-Encoding": "chunked", "Connection": "keep-alive"})
        chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
        with self.connect(endpoint) as connection:
            connection.send(head)
            while connection.send(chunk) and sent < most_bytes:
                sent += len(piece)
            if sent >= most_bytes:
                raise Broken(f"{sent} bytes were taken without an answer")
            response = connection.read(method)
            while sent < most_bytes:
                try:
                    connection.socket.sendall(chunk)
                except TimeoutError:
                    raise Broken("the connection stays open after the answer, and nobody reads") from None
                except OSError:
                    break
                sent += len(piece)
            else:
                raise Broken(f"{sent} bytes were taken in spite of {response}")
        self.answers.append((method, target, response))
        return response, sent

    def raw(self, payload, method="GET", endpoint=None):
        """Sends these bytes and reads one answer."""
        with self.connect(endpoint) as connection:
            connection.send(payload)
            response = connection.read(method)
        self.answers.append((method, repr(payload[:60]), response))
        return response


def build_head(method, target, host, headers=(), body=None, pieces=None, version="HTTP/1.1"):
    pairs = list(headers.items() if isinstance(headers, dict) else headers)
    named = {name.lower() for name, _ in pairs}
    lines = [f"{method} {target} {version}"]
    if "host" not in named:
        lines.append(f"Host: {host}")
    if "connection" not in named:
        lines.append("Connection: close")
    if not named & {"content-length", "transfer-encoding"}:
        if pieces is not None:
            lines.append("Transfer-Encoding: chunked")
        elif body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body or b'')}")
    lines += [f"{name}: {value}" for name, value in pairs]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
