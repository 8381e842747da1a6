"""Run the jobs of wheels.yml that need neither GitHub nor a GPU on this machine: plan, units, wheels, publish.

    nox -s rehearse -- --arch 86,89 --seed /var/tmp/llama-cuda-wheels

Each job runs its own scripts from that file, in a new clone of the last commit, with the variables of a runner. The
bytes of a unit depend on the path of the work root, so each job has an empty folder mounted at that path, in its own
mount namespace (unshare --mount). The work root of this machine is neither used nor moved, so nothing must be restored
after an interruption. Artifacts and caches are folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from build_config.errors import CommandError, PipelineError, SettingsError
from build_config.system import jsonio, processes
from build_config.system.console import Console, duration
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE
from build_config.tasks.reproduce import second_build

CHECKOUT = PACKAGE.parent
WORKFLOW = ".github/workflows/wheels.yml"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INDEX_VARIABLES = re.compile(r"PIP_\w+|\w+_(?:PROXY|proxy)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")
"""Variables with which this machine reaches a package index."""
SETUP = f'PYTHON={shlex.quote(sys.executable)} ci/bootstrap.sh "$RUNNER_TEMP/nox"'
"""Replaces the action that installs Python and nox."""
CACHES = ("downloads", "cache")
"""Folders of the work root that the service keeps for later jobs and runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """One run of the workflow; the folders of its jobs, caches, artifacts and logs are below ``out``."""

    checkout: Path
    out: Path
    console: Console

    def run(self, *, arch: str, cuda: str, seed: Path | None) -> None:
        """Run all jobs in order. Raises ``CommandError`` for the first script that fails, and stops there."""
        if self.out.exists() and any(self.out.iterdir()):
            raise SettingsError(f"{self.out} is not empty", remedy="pass a new folder")
        for cache in CACHES:
            (self.out / cache).mkdir(parents=True)
            if seed is not None and (seed / cache).is_dir():
                shutil.copytree(seed / cache, self.out / cache, symlinks=True, dirs_exist_ok=True)
        self._job("plan", "plan", {"arch": arch, "cuda": cuda, "cards": ""})
        lines = (self.out / "plan.txt").read_text(encoding="utf-8").splitlines()
        plan = {name: json.loads(jobs) for name, _, jobs in (line.partition("=") for line in lines)}
        for unit in plan["units"]:
            self._job("unit", f"unit-{unit['id']}", unit, gives="units")
        for wheel in plan["wheels"]:
            units = {f"unit-{unit}": "units" for unit in wheel["units"]}
            self._job("wheel", f"wheel-{wheel['id']}", wheel, takes=units, gives="wheelhouse")
        wheels = {name: f"collected/{name}" for name in (f"wheel-{wheel['id']}" for wheel in plan["wheels"])}
        self._job("publish", "publish", {}, takes=wheels, gives="wheelhouse")
        self.console.table("", tuple((job.step, duration(job.seconds)) for job in self.console.timings))
        for made in sorted((self.out / "artifacts" / "publish").glob("*.whl")):
            self.console.note(f"{hashlib.sha256(made.read_bytes()).hexdigest()}  {made.name}")

    def _job(
        self, job: str, name: str, values: dict[str, Any], *, takes: dict[str, str] | None = None, gives: str = ""
    ) -> None:
        """Run one job. ``takes`` are artifacts and their folders in the clone, ``gives`` the folder to keep as one."""
        folder = self.out / "jobs" / name
        clone = folder / "checkout"
        (folder / "work-root").mkdir(parents=True, mode=0o755)  # it is refused if others can write to it
        with self.console.step(name, f"Job {name}"):
            clone_command = ("git", "clone", "--quiet", "--no-hardlinks", str(self.checkout), str(clone))
            processes.run(processes.Command(argv=clone_command))
            for artifact, target in (takes or {}).items():
                shutil.copytree(self.out / "artifacts" / artifact, clone / target, dirs_exist_ok=True)
            self._script(SETUP, folder, {})
            for step in yaml.safe_load((clone / WORKFLOW).read_text(encoding="utf-8"))["jobs"][job]["steps"]:
                if "run" in step:
                    self._script(step["run"], folder, {key: values[key.lower()] for key in step.get("env", {})})
            if gives:  # without modes, like the service's artifacts
                shutil.copytree(clone / gives, self.out / "artifacts" / name, copy_function=shutil.copyfile)
        shutil.rmtree(folder)

    def _script(self, script: str, folder: Path, variables: dict[str, str]) -> None:
        """Run a script as GitHub does, with ``bash -e`` in the clone, with the work root of this job."""
        root = CANONICAL_WORK_ROOT
        caches = [[str(self.out / cache), str(root / cache)] for cache in CACHES]
        environment = {key: value for key, value in os.environ.items() if INDEX_VARIABLES.fullmatch(key)} | {
            "PATH": f"{folder}/temp/nox/bin:{SYSTEM_PATH}",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "CI": "true",
            "RUNNER_TEMP": f"{folder}/temp",
            "GITHUB_OUTPUT": f"{self.out}/plan.txt",
        }
        description = {
            "binds": [[str(folder / "work-root"), str(root)], *caches],
            "memory_folders": [],
            "hostname": "runner",
            "uid": os.getuid(),
            "gid": os.getgid(),
            "umask": 0o022,
            "folder": str(folder / "checkout"),
            "command": ["/bin/bash", "-e", "-c", script],
            "environment": environment | variables,
        }
        jsonio.write(folder / "enter.json", description)
        enter = (sys.executable, "-I", second_build.entry_script(), str(folder / "enter.json"))
        log = self.out / "logs" / f"{folder.name}.log"
        command = processes.Command(argv=(*second_build.namespaces(), *enter), log=log)
        self.console.note(f"$ {script}")
        done = processes.run(command, check=False, on_line=lambda line: self.console.note(f"| {line}"))
        if done.returncode != 0:
            raise CommandError(f"{folder.name}: {script} {done.ending}: {done.last_words}", log=log)


def main(
    arch: Annotated[str, typer.Option(help="One wheel of these architectures instead of ci/matrix.toml.")] = "",
    cuda: Annotated[str, typer.Option(help="Only this release of CUDA.")] = "",
    seed: Annotated[Path | None, typer.Option(help="An earlier run's work root: its downloads and cache.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for logs and artifacts; default: temporary.")] = None,
) -> None:
    """Run the jobs of wheels.yml on this machine, one after the other."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM then stops the job's processes, too
    console = Console()
    folder = (out or Path(tempfile.mkdtemp(prefix="rehearsal-"))).absolute()
    if processes.capture("git", "-C", str(CHECKOUT), "status", "--porcelain").output:
        console.warn("each job clones the last commit: uncommitted changes are not used")
    try:
        Rehearsal(checkout=CHECKOUT, out=folder, console=console).run(arch=arch, cuda=cuda, seed=seed)
    except PipelineError as error:
        console.error(str(error))
        raise typer.Exit(error.exit_code) from error
    finally:
        console.note(f"logs and artifacts: {folder}; not run here: GPU, attestation, release")


if __name__ == "__main__":
    typer.run(main)
