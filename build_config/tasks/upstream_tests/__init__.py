"""Runs llama-cpp-python's own tests against the finished wheel: those of the locked sources that download nothing.

The rest of this package says what a wheel must be; upstream's tests say whether the bindings still do what they did.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError, LockError, SettingsError, ValidationError
from build_config.formats import tar
from build_config.system.processes import Command, Completed
from build_config.system.processes import run as run_command
from build_config.tasks.upstream_tests import downloads, results
from build_config.tasks.upstream_tests.results import Noted, Outcomes, UpstreamTestReport
from build_config.testbed import clean_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from build_config.model import SourceLock, Wheel
    from build_config.system.console import Console
    from build_config.system.layout import Layout

LOCK = "upstream-tests.txt"
LOG = "upstream-tests.log"
RECORDER = Path(__file__).with_name("recorder.py")
"""Not imported: it needs pytest, which the pipeline runs without."""
TESTS = Path("tests")
MODELS = Path("vendor/llama.cpp/models")
"""Where upstream's tests open their vocabularies, relative to the current directory."""
TIMEOUT = 1800.0
"""Seconds for all tests. On two cores they take a few."""

_VOCABULARY = re.compile(r"ggml-vocab-[\w.-]+\.gguf")
_PASSED, _SOME_FAILED, _NONE_COLLECTED = 0, 1, 5
"""Of pytest's exit codes, those with which its result is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRun:
    """What came of one suite. ``left_out`` are the ids of tests that download something, with the chain of calls."""

    outcomes: Outcomes
    left_out: tuple[Noted, ...]


def run(
    wheel: Wheel, sources: SourceLock, archive: Path, *, wheels_folder: Path, layout: Layout, console: Console
) -> UpstreamTestReport:
    """Install ``wheel`` from ``wheels_folder`` into a clean environment and run upstream's tests with it.

    ``archive`` is the verified source distribution that ``sources`` names. Requirements come from the lock
    ``upstream-tests.txt``. The tests lie in a temporary folder without any ``llama_cpp``, so that the installed one is
    what they import. A test that fails is in the report.

    Raises ``SettingsError`` for a wheel of another version than the sources, ``ValidationError`` when the wheel does
    not install, when pytest breaks off, and when the tests imported a ``llama_cpp`` from elsewhere.
    """
    start = time.monotonic()
    if wheel.version.public != sources.file.version:
        message = f"{wheel.path.name} is not of the locked sources, whose version is {sources.file.version}"
        raise SettingsError(message, remedy="name a wheel of that version, or nox -s build_cuda_wheel")
    if clean_environment.requirements(wheel, layout.locks).name != "validation.txt":
        message = f"{wheel.path.name} is of an earlier CUDA than {LOCK} has the libraries of"
        raise SettingsError(message, remedy="name a wheel of the locked CUDA: the bindings are the same")
    log = layout.logs / LOG
    log.unlink(missing_ok=True)
    with clean_environment.outside(layout.checkout) as folder:
        suite = unpack(archive, folder)
        console.note("Making a clean environment with what upstream's tests need")
        python = clean_environment.make(folder, layout.locks / LOCK, layout.downloads, log)
        console.note(f"Installing {wheel.path.name}")
        findings = clean_environment.install(wheel, wheels_folder, python, log)
        if findings:
            raise ValidationError("; ".join(finding.message for finding in findings), log=log)
        console.note(f"Running the tests of llama-cpp-python {sources.file.version}")
        done = run_suite(python, suite, log=log)
        package = done.outcomes.package
        environment = python.parent.parent
        if package is not None and not package.is_relative_to(environment):
            raise ValidationError(f"The tests imported {package}, not the installed wheel", log=log)
    return UpstreamTestReport(
        wheel_sha256=wheel.sha256,
        upstream=sources.file.version,
        package=None if package is None else package.relative_to(environment).as_posix(),
        passed=done.outcomes.passed,
        failed=done.outcomes.failed,
        skipped=done.outcomes.skipped,
        left_out=done.left_out,
        seconds=round(time.monotonic() - start, 3),
    )


def unpack(archive: Path, folder: Path) -> Path:
    """A folder with the tests of a source distribution, the vocabularies that they name, and nothing to import.

    Raises ``LockError`` when the archive has no tests or lacks a vocabulary that they name.
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
    for name in sorted({name for text in _texts(suite).values() for name in _VOCABULARY.findall(text)}):
        if not (root / MODELS / name).is_file():
            raise LockError(f"{archive.name} has no {MODELS / name}, which its tests name")
        (root / MODELS / name).rename(suite / MODELS / name)
    shutil.rmtree(unpacked)
    return suite


def run_suite(python: Path, suite: Path, *, log: Path | None = None) -> SuiteRun:
    """Run the tests below ``suite`` with ``python``, but for those that download something, offline.

    Raises ``ValidationError`` when they cannot be collected and when pytest breaks off.
    """
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")  # pytest looks for settings in the folders above
    shutil.copyfile(RECORDER, suite / "conftest.py")
    listing = _pytest(python, suite, "--collect-only", "--quiet", str(TESTS), log=log)
    if listing.returncode not in {_PASSED, _NONE_COLLECTED}:
        remedy = "where a module is missing, add it to build_config/data/locks/upstream-tests.in and run nox -s lock"
        message = f"Upstream's tests could not be collected: {listing.last_words}"
        raise ValidationError(message, remedy=remedy, log=log)
    collected = results.collected(listing.output)
    reasons = downloads.left_out(collected, _texts(suite))
    selected = tuple(test for test in collected if test not in reasons)
    left_out = results.noted(reasons)
    if not selected:
        return SuiteRun(outcomes=Outcomes(package=None, passed=(), failed=(), skipped=()), left_out=left_out)
    output = suite / "result.xml"
    # By their whole ids: `--deselect` goes by the beginning of an id and would take others along.
    done = _pytest(python, suite, f"--junit-xml={output}", "-ra", *selected, log=log)
    if done.returncode not in {_PASSED, _SOME_FAILED}:
        raise ValidationError(f"Upstream's tests broke off; pytest {done.ending}: {done.last_words}", log=log)
    return SuiteRun(outcomes=results.read(output, selected), left_out=left_out)


def _texts(suite: Path) -> Mapping[str, str]:
    """The source texts below ``tests/``, by their names in pytest's ids."""
    return {
        path.relative_to(suite).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((suite / TESTS).rglob("*.py"))
    }


def _pytest(python: Path, suite: Path, *arguments: str, log: Path | None) -> Completed:
    """A call that no setting of the user's changes, and that finds no model which the user once downloaded."""
    changes = {
        "PYTEST_ADDOPTS": None,
        "PYTEST_PLUGINS": None,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(suite / "no-models"),
        "HF_HUB_CACHE": None,
    }
    command = Command(
        argv=(str(python), "-I", "-m", "pytest", "-p", "no:cacheprovider", *arguments),
        cwd=suite,
        changes=changes,
        log=log,
    )
    try:
        return run_command(command, check=False, timeout=TIMEOUT)
    except CommandError as error:
        raise ValidationError(f"Upstream's tests did not come to their end: {error.message}", log=log) from error
