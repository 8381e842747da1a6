"""Make the folder: the wheel, Python wheels that are rarely installed, scripts, and recipes of models."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.metadata import parse_email
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from build_config import archs
from build_config.errors import ArchitectureError, LockError, NetworkError, PackagingError, SettingsError
from build_config.formats import build_facts, wheelfile
from build_config.model import GpuDevice, Machine
from build_config.steps import locks
from build_config.steps.toolchain import gcc
from build_config.steps.validation import compare_with_cpu, device_checks, probe, probe_runs, scenarios
from build_config.steps.validation.planted_libraries import STEMS, PlantedLibraries
from build_config.steps.wheelhouse import build_record, publication
from build_config.system import jsonio, machine, workroot
from build_config.system.files import disk_full_is_said, file_sha256, rename
from build_config.system.processes import Command, run
from build_config.tasks import check_gpu_file
from build_config.tasks.bench import child as bench_child
from build_config.tasks.gpu_kit import gpu_tests, report_text, surroundings
from build_config.tasks.gpu_kit import run as kit_run
from build_config.testbed import model_data, model_families, synthetic_model

if TYPE_CHECKING:
    from build_config.formats.build_facts import BuildFacts
    from build_config.steps.locks import Pin
    from build_config.system.console import Console
    from build_config.system.layout import Layout

SCHEMA = 1
MAX_BYTES = 55_000_000
LOCK = "gpu-kit.txt"
DESCRIPTION = "kit.json"
CHECK_GPU = check_gpu_file.NAME
SCRIPTS = {
    "run.py": kit_run,
    "scripts/bench_child.py": bench_child,
    "scripts/device_checks.py": device_checks,
    "scripts/gpu_tests.py": gpu_tests,
    "scripts/model_data.py": model_data,
    "scripts/probe.py": probe,
    "scripts/report_text.py": report_text,
    "scripts/surroundings.py": surroundings,
}
"""The scripts by their places in the folder. They import nothing of this project."""
THERE = ("numpy", "nvidia-")
"""Beginnings of the names of requirements that the other machine has: they are large, or belong to its driver."""
PIP_TIMEOUT = 600.0
# The oldest Python that the kit runs with. Unpacked, the wheels serve later ones, too: the compiled part of MarkupSafe
# is then ignored.
_FOR_PYTHON = ("--python-version", "3.9", "--implementation", "cp", "--platform", "manylinux2014_x86_64")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchModel:
    """A model of the benchmark: its file and its description."""

    file: str
    name: str


BENCH: dict[str, Any] = {
    "prompt_tokens": 256,
    "tokens": 64,
    "rounds": 3,
    "models": {
        "full": BenchModel(file="1b.gguf", name="random model '1b', 1.1 billion weights, Q4_K_M"),
        "quick": BenchModel(file="Q4_K_M.gguf", name="random model 'small', Q4_K_M"),
    },
}
BENCH_SHAPES = {"1b.gguf": (synthetic_model.ONE_B, "Q4_K_M")}
"""The model that only the benchmark uses."""
FAMILIES = {probe_runs.model_name(family): family for family in model_families.FAMILIES}
"""The models that only the scenarios use: tiny ones."""


def make(out: Path, layout: Layout, console: Console, *, arch: str | None = None, wheel: Path | None = None) -> Path:
    """Make the folder ``out`` from a published wheel, by default the newest, and return its path.

    An earlier kit in ``out`` is replaced. Raises ``SettingsError`` if there is no such wheel or ``out`` contains
    something else, ``NetworkError`` if a Python wheel cannot be fetched, ``PackagingError`` if the kit is too large.
    """
    chosen = choose(wheel, arch, layout)
    facts = build_facts.read(chosen)
    if facts is None or "manylinux" not in chosen.name:
        raise SettingsError(f"{chosen.name} is not a wheel of this project for Linux", remedy="name one that is")
    if out.exists() and any(out.iterdir()) and not (out / DESCRIPTION).is_file():
        raise SettingsError(f"{out} is not empty and not a GPU kit", remedy="pass another --out FOLDER")
    with workroot.claim(layout, purpose="gpu_kit", console=console), disk_full_is_said(out, "the files of the kit"):
        dependencies = provide_dependencies(chosen, layout, console)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
            folder = Path(temporary) / "kit"
            _fill(folder, chosen, dependencies, layout)
            _describe(folder, chosen, facts, layout)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if size > MAX_BYTES:
                message = f"the kit would have {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}"
                raise PackagingError(message, remedy="use a wheel for one architecture: --arch")
            if out.exists():
                shutil.rmtree(out)
            rename(folder, out)
    console.note(f"{chosen.name}: {size / 1e6:.1f} MB in {out}")
    return out


def choose(wheel: Path | None, arch: str | None, layout: Layout) -> Path:
    """The named wheel, or that of the wheelhouse with exactly the shards of ``arch``, or the newest.

    Raises ``SettingsError`` if there is none.
    """
    if wheel is not None and arch is not None:
        raise SettingsError("a wheel and --arch were given", remedy="leave one of them out")
    if wheel is not None:
        return wheel
    if arch is None:
        return publication.newest_wheel(layout)
    found = [path for path in layout.wheelhouse.glob("*.whl") if _is_for(path, arch)]
    if not found:
        raise SettingsError(
            f"the wheelhouse contains no wheel of --arch {arch}", remedy=f"nox -s build_cuda_wheel -- --arch {arch}"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def _is_for(wheel: Path, arch: str) -> bool:
    facts = build_facts.read(wheel)
    if facts is None:
        return False
    try:
        shards = archs.resolve(arch, cuda_release=facts.cuda, gpus=machine.nvidia().gpus).shards
    except ArchitectureError:  # its toolkit cannot compile for them
        return False
    return {shard.archs for shard in shards} == {shard.archs for shard in facts.shards}


def scripts() -> dict[str, str]:
    """The SHA-256 of every script of this project in a kit, by its place."""
    digests = {name: file_sha256(Path(module.__file__ or "")) for name, module in SCRIPTS.items()}
    with tempfile.TemporaryDirectory(prefix="gpu-kit-") as folder:
        return {**digests, CHECK_GPU: file_sha256(check_gpu_file.make(Path(folder) / CHECK_GPU))}


def steps(facts: BuildFacts) -> list[dict[str, Any]]:
    """The processes of the probe: those of a machine with a GPU for which the wheel has code."""
    capability = scenarios.own_capabilities(facts)[0]
    gpu = GpuDevice(index=0, name="a GPU", capability=capability, memory=0)
    there = Machine(system="", cpu="", cores=1, glibc="", driver=None, gpus=(gpu,))
    return [
        {
            "scenarios": [one.name for one in run],
            "options": probe_runs.options(run),
            "models": [(task, probe_runs.model_name(family)) for task, family in probe_runs.tasks(run)],
            "changes": dict(run[0].changes),
            "planted": run[0].planted,
        }
        for run in probe_runs.group(scenarios.on_this_machine(there, facts))
    ]


# --------------------------------------------------------------------------------------------------- Python wheels


def provide_dependencies(wheel: Path, layout: Layout, console: Console) -> tuple[Path, ...]:
    """Provide the Python wheels of the lock, by digest. Raises ``LockError`` if the wheel needs another one."""
    pins = list(locks.read_pins(locks.contents(layout.locks), LOCK))
    _check_complete(wheel, pins)
    folder = layout.downloads / "gpu-kit"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in pins if _file_of(pin, folder) is None]
    if missing:
        console.note(f"fetching {', '.join(pin.name for pin in missing)}")
        requirements = folder / "requirements.txt"
        lines = (
            " ".join([f"{pin.name}=={pin.version}", *(f"--hash={each}" for each in pin.hashes)]) for pin in missing
        )
        requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
        options = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "--disable-pip-version-check")
        argv = (sys.executable, "-m", "pip", "download", *options, *_FOR_PYTHON, "--dest", str(folder))
        command = Command(argv=(*argv, "--requirement", str(requirements)), log=layout.logs / "gpu-kit.log")
        completed = run(command, check=False, timeout=PIP_TIMEOUT)
        if completed.returncode != 0:
            message = f"the Python wheels of the kit could not be fetched: {completed.last_words}"
            raise NetworkError(message, remedy="connect to the network, check PIP_INDEX_URL, and run again")
    return tuple(path for pin in pins if (path := _file_of(pin, folder)) is not None)


def _file_of(pin: Pin, folder: Path) -> Path | None:
    """A file of the lock that was fetched earlier."""
    return next((path for path in folder.glob("*.whl") if f"sha256:{file_sha256(path)}" in pin.hashes), None)


def _check_complete(wheel: Path, pins: list[Pin]) -> None:
    """Compare what the wheel requires with the lock."""
    versions = {pin.name: pin.version for pin in pins}
    contents = wheelfile.read_contents(wheel)
    raw, _ = parse_email(contents[f"{wheelfile.dist_info(contents)}/METADATA"])
    for requirement in map(Requirement, raw.get("requires_dist", [])):
        name = canonicalize_name(requirement.name)
        if name.startswith(THERE) or (
            requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        if name not in versions or not requirement.specifier.contains(versions[name]):
            message = (
                f"{wheel.name} requires {requirement}, and {LOCK} has {versions.get(name, 'nothing of that name')}"
            )
            raise LockError(message, remedy="change gpu-kit.in next to it, then run nox -s lock")


# ------------------------------------------------------------------------------------------------------------ files


def _fill(folder: Path, wheel: Path, dependencies: tuple[Path, ...], layout: Layout) -> None:
    for name in ("wheels", "scripts", "headers"):
        (folder / name).mkdir(parents=True)
    for path in (wheel, *dependencies):
        shutil.copyfile(path, folder / "wheels" / path.name)
    for name, module in SCRIPTS.items():
        shutil.copyfile(module.__file__ or "", folder / name)
    check_gpu_file.make(folder / CHECK_GPU)
    recipes = {}
    for name, (shape, kind) in {**compare_with_cpu.models(), **BENCH_SHAPES}.items():
        synthetic_model.write_header(folder / "headers" / name, shape, kind=kind)
        recipes[name] = synthetic_model.recipe(shape, kind=kind)
    for name, family in FAMILIES.items():
        synthetic_model.write_header(folder / "headers" / name, synthetic_model.TINY, family=family)
        recipes[name] = synthetic_model.recipe(synthetic_model.TINY, family=family)
    jsonio.write(folder / "headers" / "recipes.json", recipes)
    cc = gcc.find(None, os.environ).cc.path
    if PlantedLibraries.compile(folder / "planted", cc=str(cc), log=layout.logs / "gpu-kit.log") is None:
        raise PackagingError(f"{cc} compiled none of {', '.join(STEMS)}", log=layout.logs / "gpu-kit.log")
    for source in (folder / "planted").glob("*.c"):
        source.unlink()


def _describe(folder: Path, wheel: Path, facts: BuildFacts, layout: Layout) -> None:
    """Write what ``run.py`` does, and the digest of every other file."""
    packed = wheelfile.read(folder / "wheels" / wheel.name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    description = {
        "schema": SCHEMA,
        "project": build_record.pipeline_version(layout.checkout),
        "wheel": {"name": wheel.name, "sha256": packed.sha256},
        "scripts": scripts(),
        "models": [*compare_with_cpu.models(), *FAMILIES],
        "scenarios": steps(facts),
        "checks": compare_with_cpu.plan(Path(), device="").checks,
        "bench": BENCH,
        "files": {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
    jsonio.write(folder / DESCRIPTION, description)
