"""Runs the jobs of a workflow here, in order, by the scripts that stand in its file, as far as no service is needed.

    nox -s rehearse -- --arch 86,89 --seed /var/tmp/llama-cuda-wheels

Each job has a fresh clone of the committed state, an environment that holds what a runner holds, and an empty work root
that is mounted at the canonical path: so nothing reaches a job but what the file hands over to it. Artifacts and caches
are folders. Needs mount namespaces (unshare --mount). An action or expression that is not known here is an error.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from build_config.system import processes
from build_config.system.console import Console, duration, megabytes
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE
from build_config.tasks.reproduce import second_build
from ci import workflow_expressions as expressions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECKOUT = PACKAGE.parent
WORKFLOW = ".github/workflows/wheels.yml"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TO_THE_INDEX = re.compile(r"PIP_\w+|\w+_(?:PROXY|proxy)|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")
"""Variables by which this machine reaches a package index, where it does not do so by itself."""
ONLY_THERE = frozenset({"actions/attest-build-provenance"})
"""Actions that nothing here can stand for."""


class RehearsalError(Exception):
    """The workflow asks for something that is not known here, or a step of it failed."""


@dataclass(slots=True, kw_only=True)
class Instance:
    """One job with its values of the matrix, and the folders that are its machine."""

    job: str
    name: str
    folder: Path
    matrix: dict[str, Any]
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    saves: list[tuple[str, Path]] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    failed: bool = False
    steps: int = 0

    @property
    def clone(self) -> Path:
        """The checkout."""
        return self.folder / "checkout"

    @property
    def work_root(self) -> Path:
        """What is mounted at the canonical path."""
        return self.folder / "work-root"

    @property
    def temp(self) -> Path:
        """``RUNNER_TEMP``."""
        return self.folder / "temp"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of an instance: ``result`` is ``success``, ``failure`` or ``skipped``."""

    job: str
    name: str
    result: str
    steps: int
    seconds: float
    remarks: tuple[str, ...]


class Rehearsal:
    """One run of a workflow."""

    def __init__(
        self, checkout: Path, folder: Path, console: Console, *, inputs: dict[str, str], seed: Path | None = None
    ) -> None:
        text = (checkout / WORKFLOW).read_text(encoding="utf-8")
        self._workflow: dict[str, Any] = yaml.safe_load(text)
        self._checkout = checkout
        self._namespaces = second_build.namespaces()
        self._folder = folder
        self._seed = seed
        self._console = console
        self.outcomes: list[Outcome] = []
        self._needs: dict[str, dict[str, Any]] = {}
        self._context: dict[str, Any] = {
            "github": {
                "workflow": self._workflow["name"],
                "ref": "refs/heads/main",
                "ref_name": "main",
                "event_name": "workflow_dispatch",
                "sha": git(checkout, "rev-parse", "HEAD"),
                "token": "",
            },
            "inputs": inputs,
            "vars": {},
            "runner": {"os": "Linux"},
        }

    @property
    def artifacts(self) -> Path:
        """A folder an artifact."""
        return self._folder / "artifacts"

    def run(self) -> None:
        """Run all jobs, each after those that it needs. Raises ``RehearsalError`` for what is not known here."""
        waiting: dict[str, dict[str, Any]] = dict(self._workflow["jobs"])
        while waiting:
            name = next(name for name, job in waiting.items() if not set(needs_of(job)) & set(waiting))
            self._job(name, waiting.pop(name))

    def _job(self, name: str, job: dict[str, Any]) -> None:
        needed = {need: self._needs[need] for need in needs_of(job)}
        context = self._context | {"needs": needed}
        good = all(need["result"] == "success" for need in needed.values())
        functions = self._functions(good=good)
        if not expressions.condition(job.get("if", "success()"), context, functions):
            self._needs[name] = {"result": "skipped", "outputs": {}}
            self.outcomes.append(
                Outcome(job=name, name="", result="skipped", steps=0, seconds=0.0, remarks=(f"if: {job.get('if')}",))
            )
            return
        results = []
        outputs: dict[str, str] = {}
        for instance in self._instances(name, job, context, functions):
            with self._console.step(instance.name, f"Job {name}: {instance.name}"):
                start = time.monotonic()
                outputs = self._instance(instance, job, context)
                seconds = time.monotonic() - start
            result = "failure" if instance.failed else "success"
            results.append(result)
            remarks = tuple(f"not run here: {action}" for action in instance.not_run)
            self.outcomes.append(
                Outcome(
                    job=name, name=instance.name, result=result, steps=instance.steps, seconds=seconds, remarks=remarks
                )
            )
            if not instance.failed:
                shutil.rmtree(instance.folder)
        self._needs[name] = {"result": "success" if set(results) == {"success"} else "failure", "outputs": outputs}

    def _instances(
        self, name: str, job: dict[str, Any], context: dict[str, Any], functions: dict[str, Callable[..., Any]]
    ) -> Iterator[Instance]:
        matrix = job.get("strategy", {}).get("matrix", {"include": [{}]})
        if set(matrix) != {"include"}:
            raise RehearsalError(f"job {name}: only a matrix of include is known here")
        for number, values in enumerate(expressions.substitute(matrix["include"], context, functions)):
            folder = self._folder / "jobs" / f"{name}-{number}"
            instance = Instance(job=name, name=values.get("id", name), folder=folder, matrix=values)
            for each in (instance.work_root, instance.temp, folder / "home", instance.clone):
                each.mkdir(parents=True)
                each.chmod(0o755)
            yield instance

    def _instance(self, instance: Instance, job: dict[str, Any], context: dict[str, Any]) -> dict[str, str]:
        context = context | {"matrix": instance.matrix, "steps": instance.outputs}
        for step in job["steps"]:
            functions = self._functions(good=not instance.failed, clone=instance.clone)
            if not expressions.condition(step.get("if", "success()"), context, functions):
                continue
            values = expressions.substitute({k: v for k, v in step.items() if k != "if"}, context, functions)
            try:
                self._step(instance, values)
            except RehearsalError as error:
                self._console.error(str(error))
                instance.failed = True
        if not instance.failed:
            for key, path in instance.saves:
                shutil.copytree(path, self._folder / "caches" / key, symlinks=True)
        outputs: dict[str, str] = expressions.substitute(job.get("outputs", {}), context, self._functions(good=True))
        return outputs

    def _step(self, instance: Instance, step: dict[str, Any]) -> None:
        if "run" in step:
            instance.steps += 1
            self._script(instance, step)
            return
        action = step["uses"].partition("@")[0]
        options = step.get("with", {})
        match action:
            case "actions/checkout":
                git(self._checkout, "clone", "--quiet", "--no-hardlinks", ".", str(instance.clone))
                git(instance.clone, "checkout", "--quiet", "--detach", self._context["github"]["sha"])
            case "actions/setup-python":
                self._python(instance, str(options["python-version"]))
            case "actions/cache":
                self._restore(instance, options)
            case "actions/upload-artifact":
                self._upload(instance, options)
            case "actions/download-artifact":
                self._download(instance, options)
            case _ if action in ONLY_THERE:
                instance.not_run.append(action)
            case _:
                raise RehearsalError(f"the action {action} is not known here")

    def _script(self, instance: Instance, step: dict[str, Any]) -> None:
        """Run a script as GitHub does: by ``bash -e``, in the checkout."""
        script = instance.temp / "script.sh"
        script.write_text(step["run"], encoding="utf-8")
        files = {name: instance.temp / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_PATH")}
        for file in files.values():
            file.write_text("", encoding="utf-8")
        given = {name: expressions.as_text(value) for name, value in step.get("env", {}).items()}
        world = {
            "binds": [[str(instance.work_root), str(CANONICAL_WORK_ROOT)]],
            "memory_folders": [],
            "hostname": "runner",
            "uid": os.getuid(),
            "gid": os.getgid(),
            "umask": 0o022,
            "folder": str(instance.clone),
            "command": ["/bin/bash", "-e", str(script)],
            "environment": self._environment(instance) | {name: str(file) for name, file in files.items()} | given,
        }
        description = instance.temp / "world.json"
        description.write_text(json.dumps(world), encoding="utf-8")
        self._console.note(f"$ {step['run'].strip()}")
        log = self._folder / "logs" / f"{instance.job}-{instance.name}.log"
        done = processes.run(
            processes.Command(
                argv=(*self._namespaces, sys.executable, "-I", second_build.second_world_script(), str(description))
            ),
            check=False,
            on_line=lambda line: append(log, line),
        )
        if done.returncode != 0:
            raise RehearsalError(f"{step['run'].strip()!r} {done.ending}: {done.last_words}\nWhole log: {log}")
        instance.paths += files["GITHUB_PATH"].read_text(encoding="utf-8").split("\n")[:-1]
        lines = files["GITHUB_OUTPUT"].read_text(encoding="utf-8").splitlines()
        if "id" in step:
            pairs = (line.partition("=") for line in lines)
            instance.outputs[step["id"]] = {"outputs": {name: value for name, _, value in pairs}}  # type: ignore[dict-item]

    def _environment(self, instance: Instance) -> dict[str, str]:
        github = self._context["github"]
        return {
            **{name: value for name, value in os.environ.items() if TO_THE_INDEX.fullmatch(name)},
            "PATH": ":".join([*reversed(instance.paths), SYSTEM_PATH]),
            "HOME": str(instance.folder / "home"),
            "LANG": "C.UTF-8",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(instance.clone),
            "GITHUB_SHA": github["sha"],
            "GITHUB_REF": github["ref"],
            "GITHUB_REF_NAME": github["ref_name"],
            "RUNNER_OS": "Linux",
            "RUNNER_TEMP": str(instance.temp),
        }

    def _python(self, instance: Instance, version: str) -> None:
        here = ".".join(map(str, sys.version_info[:2]))
        if here != version:
            raise RehearsalError(f"the workflow asks for Python {version}, this is {here}")
        processes.run(processes.Command(argv=(sys.executable, "-m", "venv", str(instance.folder / "python"))))
        instance.paths.append(str(instance.folder / "python" / "bin"))

    def _restore(self, instance: Instance, options: dict[str, Any]) -> None:
        """An exact key, else the latest that begins as wanted, else what the seed has in a folder of the same place."""
        key = options["key"]
        place = Path(options["path"]).relative_to(CANONICAL_WORK_ROOT)
        caches = self._folder / "caches"
        prefixes = [line for line in str(options.get("restore-keys", "")).splitlines() if line]
        kept = sorted(caches.iterdir(), key=lambda path: path.stat().st_mtime) if caches.is_dir() else []
        found = [caches / key] if (caches / key).is_dir() else []
        found = found or [path for prefix in prefixes for path in reversed(kept) if path.name.startswith(prefix)]
        found += [self._seed / place] if self._seed is not None and (self._seed / place).is_dir() else []
        if found:
            shutil.copytree(found[0], instance.work_root / place, symlinks=True)
            where = "of the seed" if self._seed and found[0] == self._seed / place else found[0].name
            self._console.note(f"cache {place}: {where}, {megabytes(size_of(found[0]))}")
        else:
            self._console.note(f"cache {place}: nothing yet")
        if not (caches / key).is_dir():
            instance.saves.append((key, instance.work_root / place))

    def _upload(self, instance: Instance, options: dict[str, Any]) -> None:
        target = self.artifacts / options["name"]
        if target.exists():
            raise RehearsalError(f"there is an artifact {options['name']} already")
        lines = [line.strip() for line in str(options["path"]).splitlines() if line.strip()]
        files: dict[str, Path] = {}
        for line in lines:
            folder = instance.clone / line
            base = folder if folder.is_dir() else folder.parent
            found = [*folder.rglob("*")] if folder.is_dir() else [*base.glob(folder.name)]
            named = {path.relative_to(base).as_posix(): path for path in found if path.is_file()}
            files |= {name: path for name, path in named.items() if not re.search(r"(?:^|/)\.", name)}
        if not files and options.get("if-no-files-found") == "error":
            raise RehearsalError(f"there is nothing to upload as {options['name']}: {', '.join(lines)}")
        for name, path in files.items():  # names and contents, no modes and no links: as the service keeps them
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
        self._console.note(f"artifact {options['name']}: {len(files)} files, {megabytes(size_of(target))}")

    def _download(self, instance: Instance, options: dict[str, Any]) -> None:
        target = instance.clone / options["path"]
        if "name" in options:
            chosen = {self.artifacts / options["name"]: target}
        else:
            matching = [each for each in self.artifacts.iterdir() if fnmatch.fnmatch(each.name, options["pattern"])]
            merged = options.get("merge-multiple", False)
            chosen = {each: target if merged else target / each.name for each in matching}
        for artifact, folder in chosen.items():
            if not artifact.is_dir():
                raise RehearsalError(f"there is no artifact {artifact.name}")
            shutil.copytree(artifact, folder, dirs_exist_ok=True)
        self._console.note(f"downloaded: {', '.join(sorted(each.name for each in chosen)) or 'nothing'}")

    def _functions(self, *, good: bool, clone: Path | None = None) -> dict[str, Callable[..., Any]]:
        return {
            "success": lambda: good,
            "failure": lambda: not good,
            "always": lambda: True,
            "cancelled": lambda: False,
            "fromJSON": json.loads,
            "startsWith": lambda text, prefix: expressions.as_text(text).casefold().startswith(prefix.casefold()),
            "hashFiles": lambda *patterns: hash_files(clone or self._checkout, patterns),
        }


def needs_of(job: dict[str, Any]) -> list[str]:
    """The jobs that a job needs."""
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else list(needs)


def hash_files(root: Path, patterns: tuple[str, ...]) -> str:
    """One digest for the contents of all files that match."""
    total = hashlib.sha256()
    for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def append(log: Path, line: str) -> None:
    """Keep a line of output, and show it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def git(checkout: Path, *arguments: str) -> str:
    """What git answers."""
    return processes.run(processes.Command(argv=("git", "-C", str(checkout), *arguments))).output.strip()


def main(
    arch: Annotated[str, typer.Option(help="The workflow's input: one wheel instead of the list.")] = "",
    cuda: Annotated[str, typer.Option(help="The workflow's input: only this release of CUDA.")] = "",
    seed: Annotated[
        Path | None, typer.Option(help="A work root whose downloads and cache stand for those of an earlier run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for logs and artifacts; default: a temporary one.")
    ] = None,
) -> None:
    """Run the jobs of wheels.yml here."""
    console = Console()
    folder = (out or Path(tempfile.mkdtemp(prefix="rehearsal-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if git(CHECKOUT, "status", "--porcelain"):
        console.warn("what is not committed has no part in this: each job clones the last commit")
    rehearsal = Rehearsal(CHECKOUT, folder, console, inputs={"arch": arch, "cuda": cuda}, seed=seed)
    rehearsal.run()
    rows = tuple(
        (outcome.job, outcome.name, outcome.result, str(outcome.steps), duration(outcome.seconds), *outcome.remarks[:1])
        for outcome in rehearsal.outcomes
    )
    console.table("", rows, header=("job", "instance", "result", "scripts", "time", ""))
    for wheel in sorted((rehearsal.artifacts / "wheelhouse").glob("*.whl")):
        console.note(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}")
    console.note(f"logs and artifacts: {folder}")
    if any(outcome.result == "failure" for outcome in rehearsal.outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
