"""Sessions only: each installs its locked requirements and calls ``python -m build_config STEP``.

Options of a step follow two dashes: ``nox -s build_cuda_wheel -- --arch 86,89``. If a session fails, nox exits with
status 1, whatever the step's own exit code was; nox's line "failed with exit code N" names it.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["build_cuda_wheel"]
nox.options.default_venv_backend = "virtualenv"  # with pip in it: uv does not read the user's pip configuration
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True

OLDEST_PYTHON = (3, 11)
LOCKS = Path("build_config/data/locks")

# Seconds. Ctrl-C also reaches the step itself, which needs time to stop its compilers: nox's own 0.3 would kill it too
# early and leave them running. The sum stays below the two seconds that an interruption may take.
INTERRUPT_TIMEOUT = 1.5
TERMINATE_TIMEOUT = 0.4

# Every process of the tests stops what it started and removes what it made. So does Wine; its programs are no children.
TESTS_INTERRUPT_TIMEOUT = 20.0
# The tests of a file run in one process, because they share slow fixtures. `-- -n0` runs all tests in nox's process.
IN_PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")


@nox.session
def build_cuda_wheel(session: nox.Session) -> None:
    """Build, inspect, validate and publish a CUDA wheel: the main job."""
    step(session, "build")


@nox.session
def units(session: nox.Session) -> None:
    """Build units and no wheel: `-- --arch 86 --only sm86 --export FOLDER`."""
    step(session, "units")


@nox.session
def matrix(session: nox.Session) -> None:
    """Print the jobs of ci/matrix.toml as JSON; `-- --arch 86,89` those of one wheel."""
    step(session, "matrix")


@nox.session
def variant(session: nox.Session) -> None:
    """Make variant wheels, a preview, among which uv chooses by the GPU: `-- WHEEL... --sign-key KEY`."""
    step(session, "variant", requirements="index.txt")


@nox.session
def publish(session: nox.Session) -> None:
    """Publish wheels in an index, those of other jobs in the wheelhouse, too: `-- FOLDER... --to FOLDER`."""
    step(session, "publish", requirements="index.txt")


@nox.session
def yank(session: nox.Session) -> None:
    """Yank published wheels: `-- NAME... --reason TEXT`."""
    step(session, "yank", requirements="index.txt")


@nox.session
def index(session: nox.Session) -> None:
    """Make a package index of the wheelhouse, for any web server: `-- --out FOLDER --base-url URL`."""
    step(session, "index", requirements="index.txt")


@nox.session
def serve(session: nox.Session) -> None:
    """Serve an index over HTTP: `-- FOLDER --port 8000`."""
    step(session, "serve", requirements="index.txt")


@nox.session
def rehearse(session: nox.Session) -> None:
    """Run the jobs of .github/workflows/wheels.yml here, each in its own clone: `-- --arch 86,89`."""
    module(session, "ci.rehearse", requirements="test.txt")


@nox.session
def vendor(session: nox.Session) -> None:
    """Download the locked sources and unpack them below vendor/."""
    step(session, "vendor")


@nox.session
def lock(session: nox.Session) -> None:
    """Make the locks again; `-- --upgrade NAME` moves one package to its newest release."""
    step(session, "lock", requirements="lock.txt")


@nox.session
def outdated(session: nox.Session) -> None:
    """Name newer releases of everything that is locked, and known advisories about the locked ones."""
    step(session, "outdated")


@nox.session
def validate(session: nox.Session) -> None:
    """Install a wheel into a clean environment, run it, and report where its layers are."""
    step(session, "validate")


@nox.session
def verify(session: nox.Session) -> None:
    """Compare a wheel with its record, statement, signature and locks; `--all`: an index: `-- --public-key KEY`."""
    step(session, "verify", requirements="index.txt")


@nox.session
def sign(session: nox.Session) -> None:
    """Sign the statement about a published wheel: `-- WHEEL --sign-key KEY`."""
    step(session, "sign")


@nox.session
def keygen(session: nox.Session) -> None:
    """Make a key pair to sign statements with: `-- FOLDER`."""
    step(session, "keygen")


@nox.session
def conda(session: nox.Session) -> None:
    """Make a conda package of a published wheel, in the channel wheelhouse/conda."""
    step(session, "conda", requirements="conda.txt")


@nox.session
def cibuildwheel(session: nox.Session) -> None:
    """Build the last commit with cibuildwheel, in a container on Linux; its options follow `--`."""
    install(session, "cibuildwheel.txt")
    # A clone: cibuildwheel copies the whole folder into the container, and these environments are gigabytes.
    output, project = Path("wheelhouse").resolve(), Path(session.create_tmp(), "project")
    shutil.rmtree(project, ignore_errors=True)
    session.run("git", "clone", "--quiet", ".", str(project), external=True)
    session.chdir(project)
    session.run("cibuildwheel", "--output-dir", str(output / "cibuildwheel"), *session.posargs)


@nox.session
def upstream_tests(session: nox.Session) -> None:
    """Run llama-cpp-python's own tests with a wheel, except those that download a model."""
    step(session, "upstream_tests")


@nox.session
def doctor(session: nox.Session) -> None:
    """Say what this machine can build, and what is missing."""
    step(session, "doctor")


@nox.session
def clean(session: nox.Session) -> None:
    """Free what the work root no longer needs: `-- --older-than 30d --keep-below 20GB`; without them, only show it."""
    step(session, "clean")


@nox.session
def check_gpu(session: nox.Session) -> None:
    """Say whether an installed llama-cpp-python uses the GPU: `-- --python PATH`."""
    step(session, "check_gpu")


@nox.session
def gpu_kit(session: nox.Session) -> None:
    """Make a folder that checks a wheel on a GPU without a network: `-- --arch 90 --out FOLDER`."""
    step(session, "gpu_kit")


@nox.session
def record_gpu(session: nox.Session) -> None:
    """Judge the report of such a folder, and record gpu-verified next to the wheel: `-- REPORT`."""
    step(session, "record_gpu")


@nox.session
def reproduce(session: nox.Session) -> None:
    """Build the wheel a second time in another environment, and compare the bytes."""
    step(session, "reproduce")


@nox.session
def simulate(session: nox.Session) -> None:
    """Run a command on a simulated GPU, whose kernels do nothing: `-- 8.9 -- python script.py`."""
    step(session, "simulate")


@nox.session
def emulate(session: nox.Session) -> None:
    """Compute with a wheel's own kernels on an emulated GPU, and compare with the CPU: `-- WHEEL --all`."""
    step(session, "emulate")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the speed of a wheel: `-- device` runs the same prompt on the CPU and on the GPU."""
    step(session, "bench", requirements="bench.txt")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    install(session, "test.txt")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, including the noxfile and the tests."""
    install(session, "test.txt")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on all cores; `-- -m unit` or a file name selects some, `-- -n0` runs them one after the other."""
    install(session, "test.txt")
    command = ("python", "-m", "pytest", *IN_PARALLEL, *session.posargs)
    session.run(*command, interrupt_timeout=TESTS_INTERRUPT_TIMEOUT)


@nox.session(name="tests-unit")
def tests_unit(session: nox.Session) -> None:
    """The tests that start no process: about a minute."""
    install(session, "test.txt")
    session.run("python", "-m", "pytest", "-m", "unit", *session.posargs)


@nox.session
def wine(session: nox.Session) -> None:
    """Run a Windows program under Wine, with CPython for Windows: `-- python script.py`."""
    module(session, "ci.wine", "run", requirements="test.txt", interrupt_timeout=TESTS_INTERRUPT_TIMEOUT)


@nox.session(name="tests-wine")
def tests_wine(session: nox.Session) -> None:
    """The unit tests with Windows' Python under Wine, and those that start Windows programs; `-- --quick`."""
    module(session, "ci.wine", "tests", requirements="test.txt", interrupt_timeout=TESTS_INTERRUPT_TIMEOUT)


@nox.session(name="lock-wine")
def lock_wine(session: nox.Session) -> None:
    """Lock the newest versions of Debian's Wine and of its compilers."""
    module(session, "ci.wine", "lock", requirements="test.txt")


def step(session: nox.Session, name: str, *, requirements: str = "requirements.txt") -> None:
    """Run one step of the pipeline in an environment of its locked requirements."""
    module(session, "build_config", name, requirements=requirements)


def module(
    session: nox.Session, *arguments: str, requirements: str, interrupt_timeout: float = INTERRUPT_TIMEOUT
) -> None:
    """Run ``python -m ARGUMENTS`` with the options that follow the two dashes."""
    install(session, requirements)
    # As a module: nox changes into this folder but does not put it on sys.path, so `import build_config` would fail.
    command = ("python", "-m", *arguments, *session.posargs)
    session.run(*command, interrupt_timeout=interrupt_timeout, terminate_timeout=TERMINATE_TIMEOUT)


def install(session: nox.Session, requirements: str) -> None:
    """Install a lock, unless it is already installed in this environment.

    The lock is complete and hashed, so pip resolves nothing and builds nothing.
    """
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest, this = ".".join(map(str, OLDEST_PYTHON)), sys.version.split()[0]
        session.error(f"Python {oldest} or later is needed, this is {this}: install nox with a newer Python")
    path = LOCKS / requirements
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stamp = Path(session.virtualenv.location, "installed-lock")
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return
    options = ("--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile")
    session.install(*options, "-r", str(path))
    stamp.write_text(digest, encoding="utf-8")
