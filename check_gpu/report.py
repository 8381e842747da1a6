"""Formats the answer for people and for programs."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from check_gpu import layers
from check_gpu.explanations import EXPLANATIONS
from check_gpu.log_file import TAIL
from check_gpu.placement import CACHES

if TYPE_CHECKING:
    from check_gpu.facts import Driver, Facts, Installation, Load, Machine, Running
    from check_gpu.result import Diagnosis

SCHEMA = 1
"""Version of the JSON document. It changes with a name or a meaning; new names may be added without a change."""

LOG_LINES = TAIL
"""Number of lines from the end of the log in the document."""

_WIDTH = 11
_GOOD, _BAD, _BOLD, _OFF = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


def text(facts: Facts, diagnosis: Diagnosis, *, colours: bool = False) -> str:
    """Return a short report of aligned lines; the diagnosis comes last."""
    # A log is rarely of the machine that reads it.
    rows = [*([("machine", _machine(facts.machine))] if facts.installation else []), *_rows(facts)]
    lines = []
    previous = ""
    for name, value in rows:
        lines.append(f"{'' if name == previous else name:<{_WIDTH}}{value}")
        previous = name
    code = diagnosis.code.value
    if colours:
        code = f"{_GOOD if diagnosis.well else _BAD}{code}{_OFF}"
    closing = ["", f"{code}: {diagnosis.sentence}"]
    if diagnosis.command:
        closing.append(f"  fix it: {_BOLD if colours else ''}{diagnosis.command}{_OFF if colours else ''}")
    table = _table(facts.load) if facts.load else []
    return "\n".join([*lines, *(["", *table] if table else []), *closing])


def document(facts: Facts, diagnosis: Diagnosis) -> dict[str, Any]:
    """Return the same with all details, for ``json.dumps``."""
    return {
        "schema": SCHEMA,
        "diagnosis": {
            "code": diagnosis.code.value,
            "nothing_to_mend": diagnosis.well,
            "sentence": diagnosis.sentence,
            "meaning": EXPLANATIONS[diagnosis.code].meaning,
            "command": diagnosis.command,
        },
        "machine": dataclasses.asdict(facts.machine),
        "installation": dataclasses.asdict(facts.installation) if facts.installation else None,
        "driver": dataclasses.asdict(facts.driver) if facts.driver else None,
        "load": _load_document(facts.load) if facts.load else None,
        "running": dataclasses.asdict(facts.running) if facts.running else None,
    }


def _load_document(load: Load) -> dict[str, Any]:
    """Put the placements next to the signs, not inside them, and keep the end of the log."""
    whole = dataclasses.asdict(load)
    return {**whole, "log": whole["log"][-LOG_LINES:], "placements": whole["signs"].pop("placements")}


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.running:
        yield from _running(facts.running)
    if facts.installation:
        yield from _installation(facts.installation)
    if facts.driver:
        yield from _driver(facts.driver)
    if facts.load:
        yield from _load(facts.load)


def _machine(machine: Machine) -> str:
    system = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}.get(machine.system, machine.system)
    parts = [f"{system} ({machine.distribution})" if machine.distribution else system]
    parts += ["WSL"] if machine.wsl else []
    parts += [f"container ({machine.container})"] if machine.container else []
    gpu = {True: "an NVIDIA GPU on the bus", False: "no NVIDIA GPU on the bus", None: ""}[machine.card_on_bus]
    parts += [gpu] if gpu else []
    shown = (name for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES") if name in machine.variables)
    parts += [f"{name}={machine.variables[name]!r}" for name in shown]
    return ", ".join(parts)


def _running(program: Running) -> Iterator[tuple[str, str]]:
    yield "process", f"{program.pid}: {program.program}"
    for file in program.libraries:
        yield "loaded", file
    if program.seen:
        yield "devices", ", ".join(program.devices) or "none of the NVIDIA driver is open"
    for model in program.models:
        sizes = f"{model.mapped / 2**20:.2f} of {model.size / 2**20:.2f} MiB are in the memory of the machine"
        yield "model", f"{model.file}: {model.problem or sizes}"
    for held in program.memory or ():
        used = "unknown" if held.used is None else f"{held.used / 2**20:.0f} MiB"
        yield "GPU memory", f"{used} on GPU {held.index}, {held.name}"
    if program.memory == ():
        yield "GPU memory", "none"
    shown = (name for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES") if name in program.variables)
    for name in shown:
        yield "variable", f"{name}={program.variables[name]!r}"
    for what in program.unseen:
        yield "not seen", what


def _installation(installation: Installation) -> Iterator[tuple[str, str]]:
    yield "python", f"{installation.python} {installation.python_version}".rstrip()
    if installation.package is None:
        return
    name = f"{installation.distribution or 'llama_cpp'} {installation.version or '(unknown version)'}"
    yield "package", f"{name} in {installation.package}" if installation.version else f"in {installation.package}"
    if not installation.libraries:
        yield "CUDA build", "no shared library of llama.cpp found"
    elif not installation.cuda:
        yield "CUDA build", f"no: none of {len(installation.libraries)} libraries has CUDA code"
    for library in installation.cuda:
        code = library.problem or (f"code for {', '.join(library.code)}" if library.code else "no CUDA code")
        cuda = f", CUDA {installation.cuda_version}" if installation.cuda_version else ""
        yield "CUDA build", f"{Path(library.file).name}{cuda}, {code}"
    for needed in installation.needed:
        yield "needs", f"{needed.soname}: {needed.error or needed.path or 'found'}"


def _driver(driver: Driver) -> Iterator[tuple[str, str]]:
    if driver.problem or driver.failure:
        yield "driver", f"none: {driver.problem}" if driver.problem else f"does not answer: {driver.failure}"
        return
    error = f", error {driver.error}" if driver.error else ""
    yield "driver", f"{driver.version or 'unknown version'}, supports CUDA up to {driver.cuda}{error}"
    for device in driver.devices:
        kind = "simulated" if device.simulated else "GPU"
        memory = f"{device.memory / 2**30:.1f} GiB"
        yield kind, f"{device.index}: {device.name}, compute capability {device.capability}, {memory}"
    if not driver.devices:
        listed = f"none visible to CUDA; the driver manages {', '.join(driver.cards)}" if driver.cards else "none"
        yield "GPU", listed


def _load(load: Load) -> Iterator[tuple[str, str]]:
    if load.stage == "log":
        yield "log", load.model
        return
    answer = f"{load.tokens} tokens generated" if not load.embedding else f"embedding of {load.embedding} values"
    outcome = answer if load.stage == "done" else f"stopped at stage {load.stage!r}"
    yield "model", f"{load.model}, n_gpu_layers={load.n_gpu_layers}: {outcome}"
    for problem in filter(None, (load.error, load.ended)):
        yield "", problem.splitlines()[0]


def _table(load: Load) -> list[str]:
    """Format the placements; consecutive layers with the same placement share a line."""
    placements = load.signs.placements
    rows = [
        (layers.ranges(layer.layer for layer in group), weights or "?", cache or "-")
        for (weights, cache), group in itertools.groupby(
            placements.layers, key=lambda layer: (layer.weights, layer.kv_cache)
        )
    ]
    lines = []
    if rows:
        # A load that stopped early has logged the planned devices, but may not have moved the layers there.
        weights = "weights" if load.stage in {"generate", "done", "log"} else "planned"
        rows.insert(0, ("layer", weights, layers.cache(load) or CACHES["KV"]))
        lines = [f"{first:<{_WIDTH}}{second:<12}{third}" for first, second, third in rows]
    if placements.buffers:
        lines.append("")
        for name in dict.fromkeys(buffer.name for buffer in placements.buffers):
            sizes: dict[str, int] = {}
            for buffer in placements.buffers:
                if buffer.name == name:
                    sizes[buffer.purpose] = sizes.get(buffer.purpose, 0) + buffer.size
            listed = ", ".join(f"{purpose} {size / 2**20:.2f} MiB" for purpose, size in sizes.items())
            lines.append(f"{'memory' if lines[-1] == '' else '':<{_WIDTH}}{name:<12}{listed}")
    if placements.offloaded is not None:
        lines.append(f"{'offloaded':<{_WIDTH}}{placements.offloaded[0]}/{placements.offloaded[1]} layers to GPU")
    return lines
