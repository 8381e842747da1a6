"""Run llama-cpp-python's own tests with the finished wheel: those of the locked sources that download nothing.

Our own checks say what a wheel must be; upstream's tests show whether the bindings still work.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, LockError, SettingsError, ValidationError
from build_config.formats import tar
from build_config.system import jsonio
from build_config.system.processes import Command
from build_config.system.processes import run as run_command
from build_config.tasks.upstream_tests.results import Recorded, UpstreamTestReport
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from build_config.model import SourceLock, Wheel
    from build_config.system.console import Console
    from build_config.system.layout import Layout

LOCK = "upstream-tests.txt"
LOG = "upstream-tests.log"
RECORDER = Path(__file__).with_name("recorder.py")
"""Not imported: it needs pytest, which the pipeline runs without."""
RESULT = "result.json"
"""The file that the recorder writes."""
TESTS = Path("tests")
MODELS = Path("vendor/llama.cpp/models")
"""The folder from which upstream's tests load their vocabularies, relative to the current directory."""
TIMEOUT = 1800.0
"""Seconds for all tests. On two cores they take a few."""

_VOCABULARY = re.compile(r"ggml-vocab-[\w.-]+\.gguf")
_COMPLETE = frozenset({0, 1, 5})
"""Pytest's exit codes with a complete result: all passed, some failed, there is no test."""
_NOT_STARTED = 4
"""Pytest's exit code if a ``conftest.py`` cannot be imported."""


def run(
    wheel: Wheel, sources: SourceLock, archive: Path, *, wheels_folder: Path, layout: Layout, console: Console
) -> UpstreamTestReport:
    """Install ``wheel`` from ``wheels_folder`` into a clean environment and run upstream's tests with it.

    ``archive`` is the verified source distribution that ``sources`` names. Requirements come from the lock
    ``upstream-tests.txt``. The tests are in a temporary folder without ``llama_cpp``, so they import the installed one.
    Failed tests are in the report.

    Raises ``SettingsError`` for a wheel of another version than the sources, ``ValidationError`` if the wheel cannot be
    installed, if pytest stops early, or if the tests imported another ``llama_cpp``.
    """
    start = time.monotonic()
    if wheel.version.public != sources.file.version:
        message = f"{wheel.path.name} was not built from the locked sources, whose version is {sources.file.version}"
        raise SettingsError(message, remedy="pass a wheel of that version, or build one: nox -s build_cuda_wheel")
    if clean_environment.requirements(wheel, layout.locks).name != "validation.txt":
        message = f"{wheel.path.name} needs the libraries of an earlier CUDA than those in {LOCK}"
        raise SettingsError(message, remedy="pass a wheel of the locked CUDA: the bindings are the same")
    log = layout.logs / LOG
    log.unlink(missing_ok=True)
    with clean_environment.outside(layout.checkout) as folder:
        suite = unpack(archive, folder)
        console.note("Making a clean environment with the requirements of upstream's tests")
        python = clean_environment.make(folder, layout.locks / LOCK, layout.downloads, log)
        console.note(f"Installing {wheel.path.name}")
        findings = clean_environment.install(wheel, wheels_folder, python, log)
        if findings:
            raise ValidationError("; ".join(finding.message for finding in findings), log=log)
        console.note(f"Running the tests of llama-cpp-python {sources.file.version}")
        done = run_suite(python, suite, log=log)
        package = done.package
        environment = python.parent.parent
        if package is not None and not package.is_relative_to(environment):
            raise ValidationError(f"The tests imported {package}, not the installed wheel", log=log)
    return UpstreamTestReport(
        wheel_sha256=wheel.sha256,
        upstream=sources.file.version,
        package=None if package is None else package.relative_to(environment).as_posix(),
        passed=done.passed,
        failed=done.failed,
        skipped=done.skipped,
        left_out=done.left_out,
        seconds=round(time.monotonic() - start, 3),
    )


def unpack(archive: Path, folder: Path) -> Path:
    """Make a folder with the tests of a source distribution and the vocabularies that they name, but no package.

    Raises ``LockError`` if the archive has no tests or lacks a vocabulary that they name.
    """
    suite = folder / "suite"
    suite.mkdir()
    unpacked = folder / "sources"
    tar.extract_tar(archive, unpacked)
    (root,) = unpacked.iterdir()
    if not (root / TESTS).is_dir():
        raise LockError(f"{archive.name} has no folder {TESTS}")
    (root / TESTS).rename(suite / TESTS)
    (suite / MODELS).mkdir(parents=True)
    texts = [path.read_text(encoding="utf-8") for path in (suite / TESTS).rglob("*.py")]
    for name in sorted({name for text in texts for name in _VOCABULARY.findall(text)}):
        if not (root / MODELS / name).is_file():
            raise LockError(f"{archive.name} has no {MODELS / name}, which its tests name")
        (root / MODELS / name).rename(suite / MODELS / name)
    shutil.rmtree(unpacked)
    return suite


def run_suite(python: Path, suite: Path, *, log: Path | None = None) -> Recorded:
    """Run the tests below ``suite`` with ``python``, offline.

    Raises ``ValidationError`` if they cannot be collected or pytest stops early.
    """
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # pytest searches the parent folders for settings
    shutil.copyfile(RECORDER, suite / "conftest.py")
    # Without the user's settings, and without models that the user has downloaded.
    changes = dict.fromkeys(("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "HF_HUB_CACHE"))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(suite / "no-models")}
    argv = (str(python), "-I", "-m", "pytest", "-p", "no:cacheprovider", "-ra", str(TESTS))
    try:
        command = Command(argv=argv, cwd=suite, changes={**changes, **offline}, log=log)
        done = run_command(command, check=False, timeout=TIMEOUT)
    except CommandError as error:
        raise ValidationError(f"Upstream's tests did not finish: {error.message}", log=log) from error
    result = suite / RESULT
    recorded = jsonio.read(result, Recorded) if result.exists() else None
    uncollected = recorded.uncollected if recorded is not None else ()
    if uncollected or done.returncode == _NOT_STARTED:
        remedy = "if a module is missing, add it to build_config/data/locks/upstream-tests.in and run nox -s lock"
        message = f"Upstream's tests could not be collected: {'; '.join(uncollected) or done.last_words}"
        raise ValidationError(message, remedy=remedy, log=log)
    if recorded is None or done.returncode not in _COMPLETE:
        raise ValidationError(f"Upstream's tests stopped early; pytest {done.ending}: {done.last_words}", log=log)
    return recorded
