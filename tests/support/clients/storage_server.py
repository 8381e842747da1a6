"""A server of S3's API with one bucket that everybody may read; prints its address, and ends with its input.

Like the website of a bucket, it answers requests for a folder with the page in it. It can stop writers:
``GET /-/hold/N`` lets N more writes through, and the next one waits until ``GET /-/release``. ``GET /-/held`` says
whether one waits, ``GET /-/log`` lists the requests.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BUCKET = "shared"
POLICY = f"""{{"Version": "2012-10-17", "Statement": [
  {{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::{BUCKET}/*"}}]}}"""
PATIENCE = 60.0
"""Seconds that a writer waits at most."""


class Front:
    """The application in front of moto."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application
        self.left: int | None = None
        self.waits = threading.Event()
        self.released = threading.Event()
        self.lines: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path.startswith("/-/"):
            start("200 OK", [("Content-Type", "text/plain")])
            return [self.control(path).encode()]
        self.lines.append(f"{method} {path} {environ.get('HTTP_AUTHORIZATION', '')[:16]}")
        if method == "PUT" and self.left is not None:
            if self.left == 0:
                self.waits.set()
                self.released.wait(PATIENCE)
            else:
                self.left -= 1
        if method in {"GET", "HEAD"} and path.endswith("/") and path.strip("/") != BUCKET:
            for name in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
                environ[name] = f"{environ[name]}index.html"
        return self.application(environ, start)

    def control(self, path: str) -> str:
        match path.split("/")[2:]:
            case ["hold", number]:
                self.left = int(number)
                self.waits.clear()
                self.released.clear()
            case ["release"]:
                self.left = None
                self.released.set()
            case ["held"]:
                return str(self.waits.is_set())
            case _:
                return "\n".join(self.lines)
        return ""


def main() -> None:
    server = make_server("127.0.0.1", 0, Front(DomainDispatcherApplication(create_backend_app)), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    any_key = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **any_key)
    client.create_bucket(Bucket=BUCKET)
    client.put_bucket_policy(Bucket=BUCKET, Policy=POLICY)
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
