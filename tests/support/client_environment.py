"""Environments of the packages that use or install a finished wheel, made by uv: it links files from its cache."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from build_config.steps.locks import download, refresh
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import Wheel
    from build_config.system.layout import Layout

SCRIPTS = Path(__file__).with_name("clients")
"""The programs that run in these environments; they import nothing of the project."""
FOREIGN = ("PIP_", "UV_", "PYTHON", "CUDA_VISIBLE_DEVICES")
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""The variables that hide the GPUs of this machine."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name


def make(folder: Path, lock: Path, layout: Layout, *, python: Path | None = None) -> Environment:
    """Make an environment with the packages of a lock, checked by their hashes; cuBLAS is not downloaded again."""
    environment = Environment(folder / "environment")
    uv("venv", *(() if python is None else ("--python", python)), environment.folder)
    held, others = folder / "held.txt", folder / "others.txt"
    clean_environment._split(lock, layout.downloads, held, others)
    locked = ("--python", environment.python, "--no-deps", "--require-hashes", "--only-binary", ":all:")
    for requirements, source in ((held, ("--no-index", "--find-links", layout.downloads)), (others, ())):
        if requirements.stat().st_size:
            uv("pip", "install", *locked, *source, "--requirement", requirements)
    return environment


def install(wheel: Wheel, environment: Environment) -> None:
    """Install a wheel, whose requirements are in the lock of the environment.

    Its digest is given: uv's cache may have an earlier build under the same name.
    """
    requirement = environment.folder / "wheel.txt"
    requirement.write_text(f"llama-cpp-python=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    source = ("--no-index", "--find-links", wheel.path.parent, "--requirement", requirement)
    uv("pip", "install", "--python", environment.python, "--no-deps", "--require-hashes", *source)
    uv("pip", "check", "--python", environment.python)


def uv(*arguments: object, variables: Mapping[str, str] = MappingProxyType({})) -> str:
    """Run the locked uv with the index of this project; returns its output."""
    program = shutil.which("uv", path=sysconfig.get_path("scripts"))
    assert program is not None
    return run(program, *arguments, variables={**_uv_settings(), **variables})


def run(
    *command: object,
    variables: Mapping[str, str] = MappingProxyType({}),
    cwd: Path | None = None,
    log: Path | None = None,
) -> str:
    """Run a program that must succeed; returns its output, without what it wrote to stderr, which ``log`` keeps."""
    argv = list(map(str, command))
    done = subprocess.run(argv, env=clean_variables(variables), cwd=cwd, capture_output=True, check=False)
    errors = done.stderr.decode(errors="replace")
    if log is not None:
        log.write_text(errors, encoding="utf-8")
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(argv)}: status {done.returncode}\n{output[-3000:]}\n{errors[-6000:]}"
    return output


def clean_variables(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without the settings of pip, uv, Python and CUDA, with changes.

    Servers of this machine are asked directly, whatever its proxy is.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    direct = {name: ",".join(filter(None, (kept.get(name), "127.0.0.1"))) for name in ("no_proxy", "NO_PROXY")}
    return {**kept, **direct, **changes}


@functools.cache
def _uv_settings() -> dict[str, str]:
    kept = {name: os.environ[name] for name in refresh.KEPT_UV_SETTINGS if name in os.environ}
    return {**kept, "UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": download.index_url()}
