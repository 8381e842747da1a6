"""The repository as a PEP 517 project: ``pip wheel .``, ``python -m build --wheel`` and cibuildwheel run the main job.

What a front end installs for a build can be pinned to versions, not to digests, so this project asks it for nothing.
The steps run in an environment of their own below the checkout, made from the same hashed lock as that of nox. This
module therefore runs where only the standard library is, and uses nothing of this package.

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
OF_THE_FRONT_END = (
    "PIP_BUILD_TRACKER",
    "PIP_CONSTRAINT",
    "PIP_TARGET",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
)
"""Variables by which a front end reaches its environment and its backend, and we would reach ours: the wheel is made by
a front end and a backend of its own, scikit-build-core."""
OF_ITS_HOOKS = ("_PYPROJECT_HOOKS_", "PEP517_")
"""How the names of such variables begin in pyproject-hooks, which every front end uses, today and before."""
SECONDS_TO_STOP = 2.0
"""What the step may take to stop its compilers after Ctrl-C."""


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:  # noqa: ARG001  # PEP 517
    """Nothing: what the build needs is installed by digest, which a requirement cannot ask for."""
    return []


def build_wheel(
    wheel_directory: str,
    config_settings: Settings | None = None,
    metadata_directory: str | None = None,  # noqa: ARG001  # PEP 517
) -> str:
    """Build, inspect, validate and publish the wheel, put a copy into ``wheel_directory``, and return its name.

    Ends the process with the step's exit code where it fails; the step has said why.
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
    """The options of ``python -m build_config build`` that config settings stand for, in their order."""
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
        if name not in OF_THE_FRONT_END and not name.startswith(OF_ITS_HOOKS)
    }


def _environment() -> Path:
    """The interpreter of an environment that holds the lock and nothing else."""
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        sys.exit(f"Python {oldest} or later is needed, this is {sys.version.split()[0]}: build with a newer one")
    # Named after the interpreter too: a checkout that is copied into a container brings the environment of another one.
    digest = hashlib.sha256(LOCK.read_bytes() + os.fsencode(sys.base_prefix)).hexdigest()
    folder = ENVIRONMENT / f"{sys.implementation.cache_tag}-{digest[:12]}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / STAMP
    if not stamp.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # half made; one of an older lock may be in use
        _run(sys.executable, "-m", "venv", str(folder))
        locked = ("--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile", "-r", str(LOCK))
        _run(str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *locked)
        stamp.touch()
    return python


def _run(*command: str) -> None:
    """Run a command in the checkout; end with its exit code where it fails, and not before it has stopped."""
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
