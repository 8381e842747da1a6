"""The whole pipeline under a Windows Python, on the miniature: from doctor to a published wheel.

CMake, Ninja, sccache, delvewheel and NVIDIA's whole toolkit are the real programs for Windows; Visual Studio is played by the
test doubles of ``tests/support/windows_doubles``. What passes here ran under Wine, not on Windows.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import psutil
import pytest

from build_config.formats import pe, wheelfile
from build_config.steps import locks
from build_config.system.layout import PACKAGE, Layout
from build_config.system.platforms import access
from build_config.system.platforms.windows import WINDOWS
from tests.integration.conftest import locked_wheel
from tests.support import windows_doubles
from tests.support.windows_doubles import project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ci.wine.windows import Prefix, Windows

pytestmark = pytest.mark.wine

USER = "jörg müller"
"""With a letter of two bytes and a space, as the profiles of many people have them."""
SECONDS = 1800.0
FETCHED = "nvidia-cuda-crt"
"""The smallest of the locked wheels: the build itself downloads it from the package index."""
CLAIM = """
from build_config.commands.app import layout_of
from build_config.system import workroot
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT
with workroot.claim(layout_of(CANONICAL_WORK_ROOT), purpose="a test", console=Console()):
    print("claimed")
"""
CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
INDEX = ("PIP_INDEX_URL", "PIP_TRUSTED_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A Windows with the doubles, and a checkout there in which commands build the miniature."""

    prefix: Prefix
    checkout: Path

    @property
    def work_root(self) -> Path:
        return self.prefix.drive_c / "llama-cuda-wheels"

    @property
    def miniature(self) -> Path:
        return self.prefix.drive_c / "miniature"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start Windows' Python in the checkout; what it prints can be read."""
        certificates = next((os.environ[name] for name in CERTIFICATES if os.environ.get(name)), certifi.where())
        certificates = self.prefix.windows_path(Path(certificates))
        changes = {name: os.environ[name] for name in INDEX if name in os.environ}
        changes |= dict.fromkeys(CERTIFICATES, certificates)
        changes |= {"PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": r"C:\pycache"}
        changes |= {"WINEDLLOVERRIDES": "mscoree=;mshtml=;icacls.exe=n"}
        command = self.prefix.command("python", *arguments, folder=self.checkout, changes=changes)
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command.argv, env=command.environment, encoding="utf-8", **how)  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run Windows' Python to its end: its status, and what it printed."""
        with self.start(*arguments) as process:
            output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output

    def call(self, *arguments: str) -> str:
        """Run a command of this project without an error."""
        status, output = self.run("-m", "build_config", *arguments)
        assert status == 0, output
        return output

    def build(self) -> str:
        return self.call(*BUILD)

    def compiled(self, unit: str) -> int:
        """The steps that the last build ran for a unit."""
        log = self.work_root / "logs" / f"build-{unit}.log"
        return len(re.findall(r"^\[\d+/\d+\] ", log.read_text(encoding="utf-8"), re.MULTILINE)) if log.is_file() else 0

    def programs(self, name: str) -> list[psutil.Process]:
        """The running programs of this name."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or [""]
            if command[0].replace("\\", "/").endswith(f"/{name}"):
                found.append(process)
        return found


BUILD = ("build", "--arch", "89", "--llama-cpp", r"C:\miniature", "--jobs", "1")


@pytest.fixture(name="machine", scope="module")
def _machine(request: pytest.FixtureRequest, windows: Windows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    downloads = Path(request.config.getoption("--wine-cache")) / "downloads"
    with windows.prefix(user=USER) as prefix:
        windows_doubles.install(prefix, downloads)
        machine = Machine(prefix=prefix, checkout=prefix.drive_c / "users" / USER / "wheels")
        sdist = project.make_sdist(tmp_path_factory.mktemp("sdist"))
        project.copy_checkout(machine.checkout, sdist)
        project.copy_miniature(machine.miniature)
        with _services(prefix):
            yield machine


@contextlib.contextmanager
def _services(prefix: Prefix) -> Iterator[None]:
    """Keep Windows' services running between two commands, which would each start them again."""
    command = prefix.command("cmd", "/c", "pause")
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command.argv, env=command.environment, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet) as process:
        try:
            yield
        finally:
            process.kill()


def test_doctor_finds_the_compiler_and_says_what_can_be_built(machine: Machine) -> None:
    output = " ".join(machine.call("doctor").split())
    assert "Microsoft Visual C++ 19.44.35219" in output
    assert re.search(r"Compiler cache +ok +sccache", output)
    assert "winget install Git.Git" in output
    assert "can build for GPUs in other machines" in output
