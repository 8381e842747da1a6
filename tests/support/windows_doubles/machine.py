"""A Windows under Wine with the doubles, and a checkout there in which commands build the miniature."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import psutil

from build_config.system import processes
from ci.wine.windows import OVERRIDES, PYTHON, Prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 1800.0
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
INDEX = re.compile(r"PIP_(?:INDEX_URL|TRUSTED_HOST)|(?:HTTPS?|NO)_PROXY", re.IGNORECASE)
"""Variables with which this machine reaches a package index."""
VARIABLES = {
    "PYTHONUTF8": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPYCACHEPREFIX": r"C:\pycache",
    "WINEDLLOVERRIDES": f"{OVERRIDES};icacls.exe=n",  # the double, not Wine's own
}
RESTING = "import ctypes; ctypes.windll.user32.GetDesktopWindow(); print('up'); input()"
"""A program with a desktop that does nothing until it is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """``checkout`` is a copy of this project, ``miniature`` somebody's own checkout of llama.cpp."""

    prefix: Prefix
    checkout: Path

    @property
    def work_root(self) -> Path:
        return self.prefix.drive_c / "llama-cuda-wheels"

    @property
    def miniature(self) -> Path:
        return self.prefix.drive_c / "miniature"

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Start Windows' Python in the checkout; what it prints can be read, and it reads what is written.

        In the end it is killed if it still runs. What it started may run on, and keeps its output open.
        """
        command = self._command(*arguments)
        with subprocess.Popen(
            command.argv,
            env=command.environment,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _command(self, *arguments: str) -> processes.Command:
        certificates = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), certifi.where())
        changes = {name: value for name, value in os.environ.items() if INDEX.fullmatch(name)}
        changes |= dict.fromkeys(CERTIFICATES, self.prefix.windows_path(Path(certificates)))
        # By its path: by its name, Wine starts it through another program, which would be the one that is killed.
        return self.prefix.command(str(PYTHON), *arguments, folder=self.checkout, changes=changes | VARIABLES)

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run Windows' Python to its end: its status, and what it printed."""
        done = processes.run(self._command(*arguments), check=False, timeout=SECONDS)
        return done.returncode, done.output

    def call(self, *arguments: str) -> str:
        """Run a command of this project that must succeed."""
        status, output = self.run("-m", "build_config", *arguments)
        assert status == 0, output
        return output

    def compiled(self, unit: str) -> int:
        """The number of steps that the last build ran for a unit."""
        log = self.work_root / "logs" / f"build-{unit}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
        return len(re.findall(r"^\[\d+/\d+\] ", text, re.MULTILINE))

    def programs(self, *names: str) -> list[psutil.Process]:
        """The running programs of these names (``cicc``) in this Windows. Some are started without their ``.exe``."""
        found = []
        for process in self.prefix.programs():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if command and re.split(r"[\\/]", command[0])[-1].removesuffix(".exe") in names:
                    found.append(process)
        return found

    @contextlib.contextmanager
    def services(self) -> Iterator[None]:
        """Keep the services and the desktop of Windows running, which each command would start again otherwise.

        They keep what the program that started them had open. So no other program starts before they run: the end of
        its output would never come.
        """
        command = self.prefix.command(str(PYTHON), "-u", "-c", RESTING)
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command.argv, env=command.environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"up"
            try:
                yield
            finally:
                process.kill()
