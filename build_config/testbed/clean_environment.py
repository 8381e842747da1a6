"""Make a virtual environment with a wheel as a user would, isolated from everything else on this machine."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from build_config.errors import CommandError, ValidationError
from build_config.reports import Finding, Severity
from build_config.system import platforms
from build_config.system.processes import Command, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.model import Wheel

_SUFFIXED = re.compile(r"nvidia-(?:cuda-runtime|cublas)-cu([0-9]+)")

PIP_TIMEOUT = 1800.0
"""Seconds. cuBLAS alone is 0.4 GB."""


@contextlib.contextmanager
def outside(checkout: Path) -> Iterator[Path]:
    """An empty temporary folder, deleted afterwards. Raises ``ValidationError`` if it would be inside ``checkout``."""
    with tempfile.TemporaryDirectory(prefix="llama-cuda-wheels-") as temporary:
        folder = Path(temporary).resolve()
        if folder.is_relative_to(checkout):
            message = (
                f"Temporary files are inside the checkout ({folder.parent}): it could be imported instead of the wheel"
            )
            raise ValidationError(message, remedy="set TMPDIR to a folder outside the checkout")
        yield folder


def requirements(wheel: Wheel, locks: Path) -> Path:
    """Find the lock of the wheel's requirements at run time: NVIDIA's libraries of its CUDA.

    Without a requirement that has the major release in its name, this is the lock of the current CUDA. Raises
    ``ValidationError`` if there is no lock for the wheel's CUDA.
    """
    majors = sorted({match[1] for name in _required(wheel) if (match := _SUFFIXED.fullmatch(name))})
    if not majors:
        return locks / "validation.txt"
    lock = locks / f"validation-cu{majors[-1]}.txt"
    if not lock.is_file():
        raise ValidationError(f"{wheel.path.name} needs NVIDIA's libraries of CUDA {majors[-1]}; no lock contains them")
    return lock


def make(folder: Path, lock: Path, downloads: Path, log: Path) -> Path:
    """Make an environment in ``folder`` with the packages of ``lock``, and return its interpreter.

    Files are checked by digest and taken from ``downloads`` first. Raises ``ValidationError`` if that fails.
    """
    environment = folder / "environment"
    python = environment / platforms.HERE.scripts / platforms.HERE.program("python")
    held, others = folder / "held.txt", folder / "others.txt"
    _split(lock, downloads, held, others)
    commands = [Command(argv=(sys.executable, "-I", "-m", "venv", str(environment)), cwd=folder, log=log)]
    for requirements, source in ((held, ("--no-index", "--find-links", str(downloads))), (others, ())):
        if requirements.stat().st_size:
            locked = ("--no-deps", "--require-hashes", "--requirement", str(requirements))
            commands.append(_pip(python, "install", "--no-compile", *locked, *source, log=log))
    try:
        for command in commands:
            run(command, timeout=PIP_TIMEOUT)
    except CommandError as error:
        message = f"The clean environment for the wheel could not be made: {error.message}"
        remedy = "look for the cause in the log; on Debian and Ubuntu venv needs the package python3-venv"
        raise ValidationError(message, remedy=remedy, log=log) from error
    return python


def install(wheel: Wheel, wheels_folder: Path, python: Path, log: Path) -> tuple[Finding, ...]:
    """Install the wheel as a user does, from a folder of wheels; returns findings if that fails.

    No index is used: a requirement that is missing from the lock must not be downloaded silently. The digest is given:
    the verdict is about exactly this file. Raises ``ValidationError`` if pip cannot be started.
    """
    requirement = python.parent / "wheel.txt"
    requirement.write_text(f"llama-cpp-python=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    source = ("--no-index", "--find-links", str(wheels_folder.absolute()), "--requirement", str(requirement))
    steps = (
        ("install-failed", _pip(python, "install", "--no-compile", *source, log=log)),
        ("dependencies-broken", _pip(python, "check", log=log)),
    )
    for code, command in steps:
        try:
            completed = run(command, check=False, timeout=PIP_TIMEOUT)
        except CommandError as error:
            raise ValidationError(f"The wheel could not be installed: {error.message}", log=log) from error
        if completed.returncode != 0:
            message = f"pip {command.argv[4]} failed for {wheel.path.name}: {completed.last_words}"
            return (Finding(code=code, severity=Severity.ERROR, message=message),)
    return ()


def _required(wheel: Wheel) -> Iterator[str]:
    """The names of the distributions that a wheel requires; empty for a file that is not a wheel."""
    with contextlib.suppress(zipfile.BadZipFile, OSError, InvalidRequirement), zipfile.ZipFile(wheel.path) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name):
                raw, _ = parse_email(archive.read(name))
                yield from (canonicalize_name(Requirement(text).name) for text in raw.get("requires_dist", []))


def _split(lock: Path, downloads: Path, held: Path, others: Path) -> None:
    """Split the requirements of ``lock`` into two files: those whose wheels are in ``downloads``, and the others.

    With downloads and index together, pip would download cuBLAS (0.4 GB) again.
    """
    have = {parse_wheel_filename(wheel.name)[:2] for wheel in downloads.glob("*.whl")}
    texts: dict[Path, str] = {held: "", others: ""}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            is_held = (canonicalize_name(match[1]), Version(match[2])) in have
            texts[held if is_held else others] += line + "\n"
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def _pip(python: Path, *arguments: str, log: Path) -> Command:
    """A pip command that installs into its own environment, whatever the user's settings; the user's index is kept."""
    elsewhere = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_CONSTRAINT")
    return Command(
        argv=(str(python), "-I", "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"),
        cwd=python.parent,
        changes=dict.fromkeys(elsewhere),
        log=log,
    )
