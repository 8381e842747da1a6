"""The repository as a PEP 517 project: ``pip wheel .``, ``python -m build --wheel`` and cibuildwheel run the main job.

A front end can install build requirements by version but not by digest, so this project has none. The steps run in an
environment of their own below the checkout, made from the same hashed lock as that of nox. Therefore this module uses
only the standard library, and nothing of this package.

Config settings are the options of the build: ``-C arch=89 -C cuda=13.0`` is ``--arch=89 --cuda=13.0``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

    Settings = dict[str, str | list[str]]

OLDEST_PYTHON = (3, 11)
CHECKOUT = Path(__file__).resolve().parent.parent
LOCK = CHECKOUT / "build_config" / "data" / "locks" / "requirements.txt"
ENVIRONMENT = CHECKOUT / ".build-environment"
STAMP = "installed-lock"
FRONT_END_VARIABLES = (
    "PIP_BUILD_TRACKER",
    "PIP_CONSTRAINT",
    "PIP_TARGET",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
)
"""Variables by which a front end reaches its environment and its backend. They must not reach the inner front end and
its backend, scikit-build-core, which make the wheel."""
HOOK_PREFIXES = ("_PYPROJECT_HOOKS_", "PEP517_")
"""Prefixes of such variables in pyproject-hooks, which every front end uses: the present and the former one."""
SECONDS_TO_STOP = 2.0
"""Time in which the step may stop its compilers after Ctrl-C."""


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:  # noqa: ARG001  # PEP 517
    """No requirements: the build installs them by digest, which a requirement cannot express."""
    return []


def build_wheel(
    wheel_directory: str,
    config_settings: Settings | None = None,
    metadata_directory: str | None = None,  # noqa: ARG001  # PEP 517
) -> str:
    """Build, inspect, validate and publish the wheel, put a copy into ``wheel_directory``, and return its name.

    If the step fails, the process ends with its exit code; the step has printed the reason.
    """
    python = _environment()
    with tempfile.TemporaryDirectory(dir=wheel_directory) as folder:
        command = ["build", *options(config_settings or {}), f"--copy-to={folder}"]
        _run(str(python), "-m", "build_config", *command)
        (wheel,) = Path(folder).glob("*.whl")
        shutil.move(wheel, Path(wheel_directory, wheel.name))
    return wheel.name


def build_sdist(sdist_directory: str, config_settings: Settings | None = None) -> NoReturn:
    """Refuse: upstream's own source distribution is the source, and this repository fetches it."""
    del sdist_directory, config_settings
    sys.exit("there is no source distribution of this project: build a wheel (python -m build --wheel)")


def options(config_settings: Settings) -> list[str]:
    """Convert config settings to options of ``python -m build_config build``, in their order."""
    flat = [
        (f"--{name.lstrip('-')}", value)
        for name, values in config_settings.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    return [f"{option}={value}" if value else option for option, value in flat]


def without_front_end(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a step: the user's own, as under nox."""
    return {
        name: value
        for name, value in environ.items()
        if name not in FRONT_END_VARIABLES and not name.startswith(HOOK_PREFIXES)
    }


def _environment() -> Path:
    """The interpreter of an environment with the locked packages and nothing else."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        sys.exit(f"Python {oldest} or later is needed, this is {sys.version.split()[0]}: build with a newer one")
    # Named after the interpreter too: a checkout copied into a container contains the environment of another one.
    digest = hashlib.sha256(LOCK.read_bytes() + os.fsencode(sys.base_prefix)).hexdigest()
    folder = ENVIRONMENT / f"{sys.implementation.cache_tag}-{digest[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / STAMP
    if not stamp.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # incomplete; one of an older lock may be in use
        _run(sys.executable, "-m", "venv", str(folder))
        locked = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile", "-r", str(LOCK))
        _run(str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *locked)
        stamp.touch()
    return python


def _run(*command: str) -> None:
    """Run a command in the checkout; end with its exit code if it fails, and only after it has stopped."""
    environment = without_front_end(os.environ)
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment) as process:  # noqa: S603  # no shell, our own arguments
        try:
            status = process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
            raise
    if status != 0:
        sys.exit(status)
