"""What the facts mean: the first cause that keeps the card from being used, and the command that mends it.

A pure function. The order of the causes is the order in which they hide one another: without a driver nothing can be
said about the card, and without a card nothing about the layers.
"""

from __future__ import annotations

from typing import Callable, Optional

from check_gpu import coverage, layers, log_diagnosis, remedies
from check_gpu.facts import SIMULATED, Driver, Facts, Installation, Load
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Facts], Optional[Diagnosis]]

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_DRIVER_OLDER_THAN_RUNTIME = 35
_OTHER_BACKENDS = ("vulkan", "hip", "sycl", "metal", "musa", "opencl")


def diagnose(facts: Facts) -> Diagnosis:
    """The diagnosis. Never raises; what none of the causes explains is ``unknown``."""
    causes = CAUSES if facts.installation is not None else log_diagnosis.CAUSES
    found = (cause(facts) for cause in causes)
    return next((diagnosis for diagnosis in found if diagnosis is not None), _unknown(facts))


# --------------------------------------------------------------------------------------------------------- all is well


def _in_use(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.stage != "done" or load.ended is not None or not layers.all_on_card(load):
        return None
    where, tokens = layers.where(load), load.tokens
    if _simulated(facts):
        sentence = (
            f"All layers are on a simulated device: {where}. It is no card; nothing here says that a card would work."
        )
        return Diagnosis(Code.SIMULATED, sentence)
    sentence = f"The card is used: all layers and their KV cache are on {where}; {tokens} tokens were generated."
    return Diagnosis(Code.CARD_USED, sentence)


def _simulated(facts: Facts) -> bool:
    names = facts.load.signs.device_names if facts.load else ()
    seen = facts.driver.devices if facts.driver else ()
    return any(SIMULATED in name for name in names) or any(device.simulated for device in seen)


# ------------------------------------------------------------------------------------------------- nothing to look at


def _python_failed(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    if installation.error is None:
        return None
    sentence = f"The interpreter could not be asked: {installation.error}."
    return Diagnosis(Code.PYTHON_FAILED, sentence, "name a Python 3.8 or later: --python PATH")


def _not_installed(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    if installation.package is not None:
        return None
    left = ""
    if installation.distribution:
        left = f", although pip lists {installation.distribution} {installation.version}"
    sentence = f"{installation.python} (Python {installation.python_version}) has no package llama_cpp{left}."
    return Diagnosis(Code.NOT_INSTALLED, sentence, remedies.build(facts))


# ------------------------------------------------------------------------------------------------------------ build


def _no_card_at_all(facts: Facts) -> Diagnosis | None:
    """Nothing is wrong with a build that computes on the CPU where there is nothing else."""
    if not _works_on_cpu(facts.load) or not _has_no_card(facts):
        return None
    what = "macOS has no CUDA" if facts.machine.system == "darwin" else "This machine has no NVIDIA card"
    return Diagnosis(Code.NO_CARD, f"{what}; the model runs on the CPU, as it has to.")


def _has_no_card(facts: Facts) -> bool:
    """Whether there is none on the bus, and a driver, if there is one, has nothing to say against it.

    A sandbox can show a bus that is not the machine's; there the driver fails in a way of its own, or cards are hidden.
    """
    driver, machine = _driver(facts), facts.machine
    hidden = driver.problem is None and driver.cards is None and "CUDA_VISIBLE_DEVICES" in machine.variables
    silent = driver.failure is None and driver.error in {0, _NO_DEVICE} and not (driver.devices or driver.cards)
    return machine.card_on_bus is False and not machine.wsl and silent and not hidden


def _cpu_only(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    if installation.cuda or not installation.libraries or not _works_on_cpu(facts.load):
        return None
    others = [name for name in installation.libraries if any(f"ggml-{kind}" in name for kind in _OTHER_BACKENDS)]
    kind = f"has no CUDA, only {', '.join(others)}, which finds no card" if others else "is a build for the CPU only"
    sentence = (
        f"{_name(installation)} {kind}: none of its {len(installation.libraries)} libraries has CUDA code, "
        f"so n_gpu_layers has no effect{_on(facts)}."
    )
    return Diagnosis(Code.CPU_ONLY_BUILD, sentence, remedies.build(facts))


# ----------------------------------------------------------------------------------------------------------- driver


def _needs_driver(facts: Facts) -> bool:
    return bool(_installation(facts).cuda)


def _hidden_by_container(facts: Facts) -> Diagnosis | None:
    """The NVIDIA runtime of a container brings in the driver for the cards that this variable names."""
    value = facts.machine.variables.get("NVIDIA_VISIBLE_DEVICES")
    nothing = value in {"", "none", "void"}
    if not _needs_driver(facts) or facts.machine.container is None or not nothing or _driver(facts).devices:
        return None
    sentence = f"NVIDIA_VISIBLE_DEVICES={value!r} keeps every card out of this container."
    return Diagnosis(Code.CARD_HIDDEN, sentence, "docker run --gpus all -e NVIDIA_VISIBLE_DEVICES=all IMAGE")


def _driver_missing(facts: Facts) -> Diagnosis | None:
    driver, machine = _driver(facts), facts.machine
    if not _needs_driver(facts) or driver.problem is None:
        return None
    sentence = f"No NVIDIA driver can be loaded ({driver.problem})"
    if _has_no_card(facts):
        sentence += ", and this machine has no NVIDIA card"
        sentence += ": this build cannot even be imported here" if _import_failed_at_all(facts.load) else ""
        return Diagnosis(Code.DRIVER_MISSING, f"{sentence}.", _without_card(facts))
    if machine.container is not None and machine.system == "linux":
        sentence = f"This is a container ({machine.container}) that was started without the NVIDIA driver."
        return Diagnosis(Code.CONTAINER_WITHOUT_DRIVER, sentence, remedies.start_container())
    if machine.card_on_bus:
        sentence += " although an NVIDIA card is in the machine"
    return Diagnosis(Code.DRIVER_MISSING, f"{sentence}.", remedies.driver(machine))


def _without_card(facts: Facts) -> str:
    name = _installation(facts).distribution or "llama-cpp-python"
    return f"{_installation(facts).python} -m pip install --force-reinstall --no-cache-dir {name}  # a CPU build"


def _card_hidden(facts: Facts) -> Diagnosis | None:
    driver = _driver(facts)
    hidden = facts.machine.variables.get("CUDA_VISIBLE_DEVICES")
    if not _needs_driver(facts) or hidden is None or driver.devices or driver.error not in {0, _NO_DEVICE}:
        return None
    if driver.failure is not None or driver.cards == ():
        return None
    listed = f": {', '.join(driver.cards)}" if driver.cards else ""
    sentence = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every card from this process{listed}."
    return Diagnosis(Code.CARD_HIDDEN, sentence, remedies.unset(facts.machine, "CUDA_VISIBLE_DEVICES"))


def _driver_too_old(facts: Facts) -> Diagnosis | None:
    driver, installation = _driver(facts), _installation(facts)
    needed = installation.cuda_version
    load = facts.load
    said = load is not None and (load.signs.driver_too_old or driver.error == _DRIVER_OLDER_THAN_RUNTIME)
    too_old = needed is not None and 0 < driver.major < int(needed.split(".")[0])
    if not _needs_driver(facts) or driver.cuda is None or not (too_old or said):
        return None
    oldest = installation.own.oldest_driver if installation.own else _oldest_driver(needed)
    version = f" {driver.version}" if driver.version else ""
    sentence = (
        f"The NVIDIA driver{version} runs CUDA {driver.cuda} at most and this build needs CUDA {needed}"
        f"{f' (driver {oldest} or later)' if oldest else ''}."
    )
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, remedies.driver(facts.machine, oldest=oldest))


def _oldest_driver(cuda: str | None) -> str | None:
    return coverage.OLDEST_DRIVER.get(int(cuda.split(".")[0])) if cuda else None


def _driver_broken(facts: Facts) -> Diagnosis | None:
    driver = _driver(facts)
    if not _needs_driver(facts) or driver.devices:
        return None
    restart = "wsl --shutdown" if facts.machine.wsl else log_diagnosis.ASK_DRIVER
    if driver.failure is not None:
        return Diagnosis(Code.DRIVER_BROKEN, f"The NVIDIA driver does not answer: {driver.failure}.", restart)
    if driver.error not in {0, _NO_DEVICE}:
        sentence = f"The NVIDIA driver does not start: CUDA error {driver.error}."
        return Diagnosis(Code.DRIVER_BROKEN, sentence, restart)
    if facts.machine.card_on_bus or driver.cards:
        sentence = "The NVIDIA driver is there and finds no card, although one is in the machine."
        return Diagnosis(Code.DRIVER_BROKEN, sentence, restart)
    return None


# ------------------------------------------------------------------------------------------- libraries and device code


def _library_missing(facts: Facts) -> Diagnosis | None:
    missing = [needed for needed in _installation(facts).needed if needed.error and not _is_driver(needed.soname)]
    if not missing:
        return None
    said = missing[0].error or ""
    names = ", ".join(needed.soname for needed in missing)
    consequence = "it cannot be imported" if _import_failed_at_all(facts.load) else "its CUDA code is not in use"
    sentence = f"CUDA's libraries are missing, {names}, so {consequence} ({said})."
    return Diagnosis(
        Code.CUDA_LIBRARY_MISSING, sentence, remedies.libraries(facts, [needed.soname for needed in missing])
    )


def _is_driver(soname: str) -> bool:
    return soname.startswith(("libcuda.so", "nvcuda"))


def _not_covered(facts: Facts) -> Diagnosis | None:
    installation, devices = _installation(facts), _driver(facts).devices
    load = facts.load
    with_code = [library for library in installation.cuda if library.code]
    fits = any(all(map(library.covers, devices)) for library in with_code)
    if not devices or (not (with_code and not fits) and not (load and load.signs.no_kernel)):
        return None
    without = [device for device in devices if not any(library.covers(device) for library in with_code)] or devices
    cards = ", ".join(f"{device.name} (compute capability {device.capability})" for device in without)
    sentence = f"{_name(installation)} has CUDA code for {', '.join(installation.code)} and none that {cards} can run."
    return Diagnosis(Code.CARD_NOT_COVERED, sentence, remedies.build(facts))


# -------------------------------------------------------------------------------------------------------------- load


def _out_of_memory(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or not load.signs.out_of_memory or load.stage == "done":
        return None
    return log_diagnosis.out_of_memory(load)


def _import_failed(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.stage != "import" or load.error is None:
        return None
    installation = _installation(facts)
    command = remedies.imports(installation, load.error)
    return Diagnosis(Code.IMPORT_FAILED, f"{_name(installation)} cannot be imported: {load.error}.", command)


def _crashed(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.ended is None or load.stage == "done":
        return None
    doing = {"import": "importing llama_cpp", "load": "loading the model", "generate": "generating"}.get(
        load.stage, "starting"
    )
    if load.ended.startswith("no answer"):
        sentence = f"There was {load.ended} while {doing}."
        command = "--timeout SECONDS allows more; nvidia-smi shows whether the card hangs"
        return Diagnosis(Code.TIMED_OUT, sentence, command)
    sentence = f"It crashed while {doing}: {load.ended}"
    command = remedies.reinstall(_installation(facts), portable=load.signal == "SIGILL")
    if load.signal == "SIGILL":
        sentence += "; this build uses instructions that this CPU lacks"
    elif load.signs.cuda_error:
        sentence += f"; CUDA says: {load.signs.cuda_error}"
        command = log_diagnosis.ASK_KERNEL
    return Diagnosis(Code.CRASHED, f"{sentence}.", command)


def _model_not_loaded(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.error is None or load.stage == "done":
        return None
    sentence = f"The model {load.model} could not be used: {load.error}."
    command = "--model PATH names another GGUF file; without it a tiny one is used"
    return Diagnosis(Code.MODEL_NOT_LOADED, sentence, command)


def _backend_not_loaded(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    said = installation.backend_error or (facts.load.signs.init_error if facts.load else None)
    if said is None or not _driver(facts).devices:
        return None
    sentence = f"The CUDA backend of {_name(installation)} does not start: {said}."
    return Diagnosis(Code.BACKEND_NOT_LOADED, sentence, remedies.reinstall(installation))


def _layers(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.stage != "done":
        return None
    return layers.not_requested(load) or layers.left_on_cpu(load) or layers.cache_on_cpu(load)


def _unknown(facts: Facts) -> Diagnosis:
    load = facts.load
    said = load.status_reason or load.signs.init_error if load else None
    where = layers.where(load) if load and load.signs.placements.layers else "a place that the log does not name"
    sentence = f"The layers are on {where} and nothing that was looked at explains it"
    sentence += f"; the wheel says: {said}" if said else "."
    return Diagnosis(Code.UNKNOWN, sentence, "report it with the output of --json")


CAUSES: tuple[Cause, ...] = (
    _in_use,
    _python_failed,
    _not_installed,
    _no_card_at_all,
    _cpu_only,
    _hidden_by_container,
    _driver_missing,
    _card_hidden,
    _driver_too_old,
    _driver_broken,
    _library_missing,
    _not_covered,
    _out_of_memory,
    _import_failed,
    _crashed,
    _model_not_loaded,
    _backend_not_loaded,
    _layers,
)


def _installation(facts: Facts) -> Installation:
    assert facts.installation is not None  # noqa: S101  # for the type checker: logs alone have causes of their own
    return facts.installation


def _driver(facts: Facts) -> Driver:
    return facts.driver or Driver()


def _works_on_cpu(load: Load | None) -> bool:
    return load is not None and load.stage == "done" and load.ended is None


def _import_failed_at_all(load: Load | None) -> bool:
    return load is not None and load.stage == "import"


def _name(installation: Installation) -> str:
    return f"{installation.distribution or 'llama_cpp'} {installation.version or '(unknown version)'}"


def _on(facts: Facts) -> str:
    cards = ", ".join(device.name for device in _driver(facts).devices)
    return f" on {cards}" if cards else ""
