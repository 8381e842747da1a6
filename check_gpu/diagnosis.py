"""Diagnoses the facts: the first cause that prevents the use of the GPU, and the command that fixes it.

A pure function. The causes are in the order in which they hide one another: without a driver, nothing can be said
about the GPU, and without a GPU, nothing about the layers.
"""

from __future__ import annotations

from typing import Callable, Optional

from check_gpu import coverage, layers, log_diagnosis, remedies, running_diagnosis
from check_gpu.facts import SIMULATED, Driver, Facts, Installation, Load
from check_gpu.log import Signs
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Facts], Optional[Diagnosis]]

_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_DRIVER_OLDER_THAN_RUNTIME = 35
_FORWARD_COMPATIBILITY = 804  # CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
_OTHER_BACKENDS = ("vulkan", "hip", "sycl", "metal", "musa", "opencl")


def diagnose(facts: Facts) -> Diagnosis:
    """Return the diagnosis: ``unknown`` if no cause explains the facts. Never raises."""
    if facts.running is not None:
        return running_diagnosis.diagnose(facts)
    if facts.installation is None:
        return log_diagnosis.diagnose(facts)
    found = (cause(facts) for cause in CAUSES)
    return next((diagnosis for diagnosis in found if diagnosis is not None), _unknown(facts))


# --------------------------------------------------------------------------------------------------------- all is well


def _in_use(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.stage != "done" or load.ended is not None or not layers.all_on_gpu(load):
        return None
    where = layers.where(load)
    if _simulated(facts):
        sentence = f"All layers are on a simulated device: {where}. It is not a GPU, and says nothing about a real one."
        return Diagnosis(Code.SIMULATED, sentence)
    answer = f"{load.tokens} tokens were generated" if not load.embedding else "a text was embedded"
    sentence = f"The GPU is used: {layers.whole(load)} are on {where}; {answer}."
    if load.status_note:  # of another GPU in the machine
        sentence += f" {load.status_note}"
    return Diagnosis(Code.CARD_USED, sentence)


def _simulated(facts: Facts) -> bool:
    names = facts.load.signs.device_names if facts.load else ()
    seen = facts.driver.devices if facts.driver else ()
    return any(SIMULATED in name for name in names) or any(device.simulated for device in seen)


# ------------------------------------------------------------------------------------------------- nothing to examine


def _python_failed(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    if installation.error is None:
        return None
    sentence = f"The interpreter could not be examined: {installation.error}."
    return Diagnosis(Code.PYTHON_FAILED, sentence, "name a Python 3.8 or later: --python PATH")


def _not_installed(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    if installation.package is not None:
        return None
    left = ""
    if installation.distribution:
        left = f", although pip lists {installation.distribution} {installation.version}"
    sentence = f"{installation.python} (Python {installation.python_version}) has no package llama_cpp{left}."
    return Diagnosis(Code.NOT_INSTALLED, sentence, remedies.install_cuda_build(facts))


# ------------------------------------------------------------------------------------------------------------ build


def _no_gpu(facts: Facts) -> Diagnosis | None:
    """Nothing is wrong with a build that runs on the CPU of a machine without a GPU."""
    if not _works_on_cpu(facts.load) or not _has_no_gpu(facts):
        return None
    what = "macOS has no CUDA" if facts.machine.system == "darwin" else "This machine has no NVIDIA GPU"
    return Diagnosis(Code.NO_CARD, f"{what}, so the model runs on the CPU.")


def _has_no_gpu(facts: Facts) -> bool:
    """Whether the bus has no GPU, and the driver, if there is one, does not contradict that.

    A sandbox can show a bus that is not the machine's. There the driver fails in another way, or GPUs are hidden.
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
    kind = f"has no CUDA, only {', '.join(others)}, which finds no GPU" if others else "is a CPU-only build"
    sentence = (
        f"{_name(installation)} {kind}: none of its {len(installation.libraries)} libraries has CUDA code, "
        f"so n_gpu_layers has no effect{_on(facts)}."
    )
    return Diagnosis(Code.CPU_ONLY_BUILD, sentence, remedies.install_cuda_build(facts))


# ----------------------------------------------------------------------------------------------------------- driver


def _needs_driver(facts: Facts) -> bool:
    return bool(_installation(facts).cuda)


def _hidden_by_container(facts: Facts) -> Diagnosis | None:
    """The NVIDIA runtime gives a container the driver and the GPUs that this variable names."""
    value = facts.machine.variables.get("NVIDIA_VISIBLE_DEVICES")
    nothing = value in {"", "none", "void"}
    if not _needs_driver(facts) or facts.machine.container is None or not nothing or _driver(facts).devices:
        return None
    sentence = f"NVIDIA_VISIBLE_DEVICES={value!r} keeps every GPU out of this container."
    return Diagnosis(Code.CARD_HIDDEN, sentence, "docker run --gpus all -e NVIDIA_VISIBLE_DEVICES=all IMAGE")


def _driver_missing(facts: Facts) -> Diagnosis | None:
    driver, machine = _driver(facts), facts.machine
    if not _needs_driver(facts) or driver.problem is None:
        return None
    sentence = f"No NVIDIA driver can be loaded ({driver.problem})"
    if _has_no_gpu(facts):
        sentence += ", and this machine has no NVIDIA GPU"
        sentence += ": this build cannot even be imported here" if _stopped_at_import(facts.load) else ""
        return Diagnosis(Code.DRIVER_MISSING, f"{sentence}.", remedies.install_cpu_build(facts))
    if machine.container is not None and machine.system == "linux":
        sentence = f"This is a container ({machine.container}) that was started without the NVIDIA driver."
        return Diagnosis(Code.CONTAINER_WITHOUT_DRIVER, sentence, remedies.start_container())
    if machine.card_on_bus:
        sentence += ", although this machine has an NVIDIA GPU"
    return Diagnosis(Code.DRIVER_MISSING, f"{sentence}.", remedies.install_driver(machine))


def _gpu_hidden(facts: Facts) -> Diagnosis | None:
    driver = _driver(facts)
    hidden = facts.machine.variables.get("CUDA_VISIBLE_DEVICES")
    if not _needs_driver(facts) or hidden is None or driver.devices or driver.error not in {0, _NO_DEVICE}:
        return None
    if driver.failure is not None or driver.cards == ():
        return None
    listed = f": {', '.join(driver.cards)}" if driver.cards else ""
    sentence = f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU from this process{listed}."
    return Diagnosis(Code.CARD_HIDDEN, sentence, remedies.unset_variable(facts.machine, "CUDA_VISIBLE_DEVICES"))


def _driver_too_old(facts: Facts) -> Diagnosis | None:
    driver, installation = _driver(facts), _installation(facts)
    needed = installation.cuda_version
    load = facts.load
    too_old = needed is not None and 0 < driver.major < int(needed.split(".")[0])
    said = load is not None and (load.signs.driver_too_old or driver.error == _DRIVER_OLDER_THAN_RUNTIME)
    if driver.error == _FORWARD_COMPATIBILITY or (load is not None and load.signs.driver_error and not too_old):
        return _driver_older_than_promised(facts)
    if not _needs_driver(facts) or driver.cuda is None or not (too_old or said):
        return None
    oldest = installation.own.oldest_driver if installation.own else _oldest_driver(needed)
    version = f" {driver.version}" if driver.version else ""
    sentence = (
        f"The NVIDIA driver{version} supports CUDA {driver.cuda} at most, but this build needs CUDA {needed}"
        f"{f' (driver {oldest} or later)' if oldest else ''}."
    )
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, remedies.install_driver(facts.machine, oldest=oldest))


def _driver_older_than_promised(facts: Facts) -> Diagnosis | None:
    """The driver supports the major version of the build, but not what else this build or container needs of it."""
    if not _needs_driver(facts):
        return None
    signs = facts.load.signs if facts.load else Signs()
    if _driver(facts).error == _FORWARD_COMPATIBILITY:
        signs = Signs(driver_error="forward_compatibility")
    sentence = f"The NVIDIA driver is too old: {log_diagnosis.driver_too_old(signs)}."
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, remedies.install_driver(facts.machine, newer=True))


def _oldest_driver(cuda: str | None) -> str | None:
    return coverage.OLDEST_DRIVER.get(int(cuda.split(".")[0])) if cuda else None


def _driver_broken(facts: Facts) -> Diagnosis | None:
    driver = _driver(facts)
    if not _needs_driver(facts) or driver.devices:
        return None
    restart = "wsl --shutdown" if facts.machine.wsl else log_diagnosis.REMEDY_ASK_DRIVER
    if driver.failure is not None:
        return Diagnosis(Code.DRIVER_BROKEN, f"The NVIDIA driver does not answer: {driver.failure}.", restart)
    if driver.error not in {0, _NO_DEVICE}:
        sentence = f"The NVIDIA driver does not start: CUDA error {driver.error}."
        return Diagnosis(Code.DRIVER_BROKEN, sentence, restart)
    if facts.machine.card_on_bus or driver.cards:
        sentence = "The NVIDIA driver finds no GPU, although this machine has one."
        return Diagnosis(Code.DRIVER_BROKEN, sentence, restart)
    return None


# ------------------------------------------------------------------------------------------- libraries and device code


def _library_missing(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    missing = [needed for needed in installation.needed if needed.error and not _is_driver(needed.soname)]
    if not missing:
        return None
    said = missing[0].error or ""
    names = ", ".join(needed.soname for needed in missing)
    consequence = "it cannot be imported" if _stopped_at_import(facts.load) else "its CUDA code is not in use"
    sentence = f"{_name(installation)} lacks CUDA libraries ({names}), so {consequence}: {said}."
    return Diagnosis(
        Code.CUDA_LIBRARY_MISSING, sentence, remedies.install_libraries(facts, [needed.soname for needed in missing])
    )


def _is_driver(soname: str) -> bool:
    return soname.startswith(("libcuda.so", "nvcuda"))


def _not_covered(facts: Facts) -> Diagnosis | None:
    installation, devices = _installation(facts), _driver(facts).devices
    load = facts.load
    with_code = [library for library in installation.cuda if library.code]
    enough = any if installation.own and installation.own.leaves_out else all
    fits = any(enough(map(library.covers, devices)) for library in with_code)
    if not devices or (not (with_code and not fits) and not (load and load.signs.no_kernel)):
        return None
    without = [device for device in devices if not any(library.covers(device) for library in with_code)] or devices
    gpus = ", ".join(f"{device.name} (compute capability {device.capability})" for device in without)
    code = f"CUDA code for {', '.join(installation.code)}, but none" if installation.code else "no CUDA code"
    sentence = f"{_name(installation)} has {code} that {gpus} can run."
    return Diagnosis(Code.CARD_NOT_COVERED, sentence, remedies.install_cuda_build(facts))


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
    command = remedies.repair_import(facts, load.error)
    return Diagnosis(Code.IMPORT_FAILED, f"{_name(_installation(facts))} cannot be imported: {load.error}.", command)


def _crashed(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.ended is None or load.stage == "done":
        return None
    doing = {"import": "importing llama_cpp", "load": "loading the model", "generate": "generating"}.get(
        load.stage, "starting"
    )
    if load.ended.startswith("no answer"):
        sentence = f"There was {load.ended} while {doing}."
        command = "--timeout SECONDS allows more; nvidia-smi shows whether the GPU hangs"
        return Diagnosis(Code.TIMED_OUT, sentence, command)
    sentence = f"llama_cpp crashed while {doing}: {load.ended}"
    command = remedies.reinstall(facts, portable=load.signal == "SIGILL")
    if load.signal == "SIGILL":
        sentence += "; this build uses instructions that this CPU lacks"
    elif load.signs.cuda_error:
        sentence += f"; CUDA says: {load.signs.cuda_error}"
        command = log_diagnosis.REMEDY_ASK_KERNEL
    return Diagnosis(Code.CRASHED, f"{sentence}.", command)


def _model_not_loaded(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.error is None or load.stage == "done":
        return None
    sentence = f"Could not use {load.model}: {load.error}."
    command = "--model PATH names another GGUF file; without it, the built-in tiny model is used"
    return Diagnosis(Code.MODEL_NOT_LOADED, sentence, command)


def _backend_not_loaded(facts: Facts) -> Diagnosis | None:
    installation = _installation(facts)
    said = installation.backend_error or (facts.load.signs.init_error if facts.load else None)
    if said is None or not _driver(facts).devices:
        return None
    sentence = f"The CUDA backend of {_name(installation)} does not start: {said}."
    return Diagnosis(Code.BACKEND_NOT_LOADED, sentence, remedies.reinstall(facts))


def _layers(facts: Facts) -> Diagnosis | None:
    load = facts.load
    if load is None or load.stage != "done":
        return None
    return layers.problem(load)


def _unknown(facts: Facts) -> Diagnosis:
    load = facts.load
    said = load.status_reason or load.signs.init_error if load else None
    where = layers.where(load) if load and load.signs.placements.layers else "a device that the log does not name"
    sentence = f"The layers are on {where}, and none of the facts explains why"
    sentence += f"; the wheel says: {said}" if said else "."
    return Diagnosis(Code.UNKNOWN, sentence, layers.REMEDY_REPORT)


CAUSES: tuple[Cause, ...] = (
    _in_use,
    _python_failed,
    _not_installed,
    _no_gpu,
    _cpu_only,
    _hidden_by_container,
    _driver_missing,
    _gpu_hidden,
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
    assert facts.installation is not None  # noqa: S101  # for the type checker: a log alone has other causes
    return facts.installation


def _driver(facts: Facts) -> Driver:
    return facts.driver or Driver()


def _works_on_cpu(load: Load | None) -> bool:
    return load is not None and load.stage == "done" and load.ended is None


def _stopped_at_import(load: Load | None) -> bool:
    return load is not None and load.stage == "import"


def _name(installation: Installation) -> str:
    return f"{installation.distribution or 'llama_cpp'} {installation.version or '(unknown version)'}"


def _on(facts: Facts) -> str:
    gpus = ", ".join(device.name for device in _driver(facts).devices)
    return f" on {gpus}" if gpus else ""
