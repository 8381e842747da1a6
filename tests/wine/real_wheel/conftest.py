"""A wheel of llama.cpp's real core, compiled by MinGW-w64, in an environment of Windows' Python under Wine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from build_config.formats import wheelfile
from build_config.model import Wheel
from build_config.system.layout import PACKAGE
from build_config.testbed.simulated_device import windows as simulated
from ci.wine.windows import Prefix
from tests.support.windows.mingw import products as mingw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from build_config.system.processes import Completed
    from build_config.testbed.simulated_device import SimulatedMachine
    from ci.wine.windows import Windows

CHECKOUT = PACKAGE.parent
QUIET = {"PYTHONUTF8": "1", "PYTHONPYCACHEPREFIX": r"C:\pycache", "NO_COLOR": "1"}
MINUTES = 60.0
ANSWER = """
import json, sys
{code}
with open({target!r}, "w", encoding="utf-8") as file:
    json.dump(answer, file)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The environment, its wheel, and the products of the compiler that belong to it."""

    prefix: Prefix
    products: Path
    wheel: Wheel
    folder: Path

    @property
    def environment(self) -> Path:
        return self.folder / "environment"

    @property
    def python(self) -> str:
        return self.path(self.environment / "Scripts" / "python.exe")

    @property
    def site(self) -> Path:
        return self.environment / "Lib" / "site-packages"

    @property
    def lib(self) -> Path:
        return self.site / "llama_cpp" / "lib"

    def path(self, path: Path) -> str:
        return self.prefix.windows_path(path)

    def on(self, machine: SimulatedMachine) -> dict[str, str]:
        """The variables with which a process has the driver of this machine; cuBLAS is where pip puts it."""
        doubles = simulated.libraries(self.products / "simulated", 13)
        files = tuple(Path(self.path(file)) for file in doubles.files if "cublas" not in file.name)
        return dataclasses.replace(doubles, files=files).environment(machine)

    def run(self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Completed:
        """Run the environment's Python."""
        changes = {**QUIET, **(variables or {})}
        return self.prefix.run(
            self.python, *arguments, folder=folder or self.folder, changes=changes, timeout=5 * MINUTES, check=False
        )

    def answer(self, code: str, variables: Mapping[str, str] | None = None) -> Any:
        """What ``code`` leaves in ``answer``. Native code prints to any stream, so it is no output."""
        target = self.folder / "answer.json"
        target.unlink(missing_ok=True)
        done = self.run("-I", "-c", ANSWER.format(code=code, target=self.path(target)), variables=variables)
        assert target.is_file(), done.output
        return json.loads(target.read_text(encoding="utf-8"))


@pytest.fixture(name="products", scope="session")
def _products(windows: Windows) -> Path:
    """Compiled once, below the cache of Wine: llama.cpp's core takes seven minutes of one core."""
    return mingw.make(windows.folder.parent / "mingw", windows.tree)


@pytest.fixture(name="installed", scope="session")
def _installed(windows: Windows, products: Path) -> Iterator[Installed]:
    with windows.prefix() as prefix:
        folder = prefix.drive_c / "real wheel"
        module = "tests.support.windows.mingw.installed"
        arguments = ("-m", module, prefix.windows_path(products), prefix.windows_path(folder))
        prefix.run("python", *arguments, folder=CHECKOUT, changes=QUIET, timeout=20 * MINUTES)
        (path,) = (folder / "wheels").glob("llama_cpp_python-*.whl")
        yield Installed(prefix=prefix, products=products, wheel=wheelfile.read(path), folder=folder)
