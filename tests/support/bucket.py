"""Storage with S3's API on this machine: moto, in an environment of its own, because boto shares no lock with us."""

from __future__ import annotations

import contextlib
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests

from build_config.system import storage
from build_config.system.layout import PACKAGE, Layout
from tests.support import client_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "shared"
SECRET = "this-is-the-secret-key"  # noqa: S105  # of a server that checks none


@dataclass(frozen=True)
class Server:
    """The server. ``url`` is its address, ``variables`` are the credentials and the address for obstore."""

    url: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "AKIATEST",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
        }

    def place(self) -> str:
        """The address of an empty folder of the bucket."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}"

    def website(self, place: str) -> str:
        """The address at which everybody may read a folder."""
        return f"{self.url}/{place.removeprefix('s3://')}"

    def control(self, what: str) -> str:
        return requests.get(f"{self.url}/-/{what}", timeout=30).text

    def wait_for_writer(self) -> None:
        """Return when a writer waits."""
        deadline = time.monotonic() + 30
        while self.control("held") != "True":
            assert time.monotonic() < deadline, "nobody has written"
            time.sleep(0.02)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Serve until the block ends."""
    layout = Layout(checkout=PACKAGE.parent, work_root=folder)
    environment = client_environment.make(folder, layout.locks / "storage.txt", layout)
    command = [environment.python, client_environment.SCRIPTS / "storage_server.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield Server(process.stdout.readline().strip())
        process.terminate()


def contents(place: str) -> dict[str, bytes]:
    """All files of a place."""
    bucket = storage.writer(place)
    return {name: content for name in bucket.names("") if (content := bucket.read(name)) is not None}
