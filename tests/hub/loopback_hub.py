"""A Hub on 127.0.0.1 that the real client can talk to, with faults on demand.

A protocol stand-in written by this project: it proves that the client path works (requests, retries, caches, what is
left on disk after an error), not that the Hub would accept the same content.

The log and the faults are reached from another process under `/__control__/` (see `scripts/checks.py`).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from loopback_routes import Reply, answer, find_route
from loopback_store import HubFault, Store

KINDS = ("status", "hangup", "drop", "short", "flip", "slow")


@dataclass
class Fault:
    """One thing that goes wrong on one route.

    Args:
        route: Name of the route (a key of `loopback_routes.ROUTES`): `lfs_put`, `commit`, `resolve`, `cdn`, ...
        kind: `status` answers with `status` after reading the request; `hangup` closes the connection in the middle
            of the request; `drop` promises the whole body, then ends at the fraction `cut` of the file; `short` does
            the same but announces the shorter length; `flip` changes one byte; `slow` waits `seconds`, then answers.
        times: How many requests it hits; -1 is all of them.
        skip: How many matching requests pass untouched before it starts.
        path: It hits only requests whose path contains this text.
    """

    route: str
    kind: str = "status"
    times: int = -1
    skip: int = 0
    path: str = ""
    status: int = 500
    cut: float = 0.5
    seconds: float = 0.0
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {KINDS}, got {self.kind!r}.")

    def strikes(self, route: str, path: str) -> bool:
        if route != self.route or self.path not in path or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= self.times > 0
        self.hits += 1
        return True


@dataclass(frozen=True)
class User:
    name: str
    write: bool = True


class LoopbackHub:
    """The running server. Use as a context manager; `url` is the endpoint.

    Large files are kept on a second port, as the Hub keeps them on another host: the client must not send its token
    there.
    """

    def __init__(self) -> None:
        self.store = Store()
        self.users = {"hf_test": User("tester"), "hf_other": User("other"), "hf_read": User("tester", write=False)}
        self.page_size = 1000
        self.faults: list[Fault] = []
        self.log: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self.servers)

    def __enter__(self) -> LoopbackHub:
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def environment(self, home: Path, token: str | None = "hf_test") -> dict[str, str]:
        """Variables that a client process needs before its first import."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def strike(self, route: str, path: str) -> Fault | None:
        with self.lock:
            return next((fault for fault in self.faults if fault.strikes(route, path)), None)

    def control(self, method: str, action: str, body: bytes) -> Reply:
        with self.lock:
            if action == "faults" and method == "POST":
                self.faults = [Fault(**item) for item in json.loads(body)]
            elif action == "faults":
                return Reply.json([asdict(fault) for fault in self.faults])
            elif action == "log" and method == "DELETE":
                self.log = []
            elif action == "log":
                return Reply.json(self.log)
            else:
                return Reply.json({"error": f"No control called {action}"}, 404)
            return Reply.json({"success": True})


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, applies a fault or the route's answer, writes the reply in one piece."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: object) -> None:  # keep the test output quiet
        return

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        if split.path.startswith("/__control__/"):
            action = split.path.rsplit("/", 1)[1]
            return self.write(self.hub.control(self.command, action, self.read_body()), "control")
        route, groups = find_route(self.command, split.path)
        fault = self.hub.strike(route, split.path) if route else None
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault and fault.kind == "hangup":
            return self.hang_up(route)
        body = self.read_body()
        if fault and fault.kind == "status":
            reply = Reply.json({"error": f"Injected fault on {route}."}, fault.status)
        else:
            query = {key: values[-1] for key, values in parse_qs(split.query, keep_blank_values=True).items()}
            reply = self.guarded(route, groups, query, body)
        self.write(reply, route, fault)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def guarded(self, route: str, groups: dict[str, str], query: dict[str, str], body: bytes) -> Reply:
        try:
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip()
            if token and token not in self.hub.users:
                raise HubFault(401, "Invalid credentials in Authorization header")
            if not route:
                raise HubFault(404, f"The loopback Hub has no route for {self.command} {self.path}")
            headers = {name.title(): value for name, value in self.headers.items()}
            reply = answer(self.hub, route, self.hub.users.get(token), groups, query, body, headers)
        except HubFault as fault:
            reply = Reply.json({"error": fault.message}, fault.status)
            reply.headers |= {"X-Error-Message": fault.message.replace("\n", " ")} | fault.headers
            if fault.code:
                reply.headers["X-Error-Code"] = fault.code
        return reply

    def read_body(self, share: float = 1.0) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(int(self.headers.get("Content-Length") or 0) * share))

    def hang_up(self, route: str) -> None:
        self.read_body(share=0.5)
        self.note(route, 0)
        self.close_connection = True

    def write(self, reply: Reply, route: str, fault: Fault | None = None) -> None:
        body, length = reply.body, len(reply.body)
        if fault and self.command != "HEAD" and reply.status in (200, 206):
            first = int(reply.headers.get("Content-Range", "bytes 0-").removeprefix("bytes ").split("-")[0])
            whole = first + length
            if fault.kind in ("drop", "short"):
                body = body[: max(int(whole * fault.cut) - first, 0)]
                length = len(body) if fault.kind == "short" else length
            elif fault.kind == "flip" and length:
                body = body[: length // 2] + bytes([body[length // 2] ^ 255]) + body[length // 2 + 1 :]
        self.note(route, reply.status)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value.encode("utf-8").decode("latin-1"))
        self.send_header("Content-Length", str(length))
        if len(body) < length and self.command != "HEAD":
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.close_connection = self.close_connection or len(body) < length

    def note(self, route: str, status: int) -> None:
        if route != "control":
            with self.hub.lock:
                entry = {"route": route, "method": self.command, "path": self.path, "status": status}
                self.hub.log.append(entry | {"token": "Authorization" in self.headers})
