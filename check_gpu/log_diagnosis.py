"""Diagnoses a log alone. A log shows less than an examined installation, and the answer says so.

No remedy depends on the machine that reads the log: it is rarely the one that wrote it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Optional

from check_gpu import import_errors, layers, remedies
from check_gpu.facts import SIMULATED, Facts, Load, Machine
from check_gpu.layers import REMEDY_EXAMINE
from check_gpu.log import Signs
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Load], Optional[Diagnosis]]

REMEDY_ASK_DRIVER = "nvidia-smi  # if it fails too: restart the machine, then install the driver again"
REMEDY_RESTART = "restart the machine; if it happens again, update the driver of the GPU"
REMEDY_ASK_KERNEL = (
    "sudo dmesg | grep Xid  # if it prints lines, the GPU or its driver failed: restart; if not, report it with --json"
)


def diagnose(facts: Facts) -> Diagnosis:
    """Judge each load of the log by itself. The last one counts, and those before it are named with their diagnosis."""
    assert facts.load is not None  # noqa: S101  # for the type checker: without an installation there is a log
    load = facts.load
    found = _judge(load)
    others = []
    for signs in load.signs.earlier:
        other = replace(load, signs=signs)
        code = _judge(other).code
        if code is not Code.LOG_SAYS_NOTHING:
            place = "on the CPU, " if layers.none_on_gpu(other) else ""
            others.append(f"{signs.model or 'one without a name'} ({place}{code.value})")
    if not others:
        return found
    more = ", ".join(dict.fromkeys(others))
    last = f" ({load.signs.model})" if load.signs.model else ""
    return replace(found, sentence=f"{found.sentence} That is the last load of the log{last}; before it: {more}.")


def _judge(load: Load) -> Diagnosis:
    found = (cause(load) for cause in CAUSES)
    return next(diagnosis for diagnosis in found if diagnosis is not None)


# -------------------------------------------------------------------------------------------------------------- errors


def out_of_memory(load: Load) -> Diagnosis:
    """Report that the memory of the GPU was too small."""
    buffers = [buffer for buffer in load.signs.placements.buffers if buffer.on_card]
    taken = sum(buffer.size for buffer in buffers)
    already = f"; the model had already taken {taken / 2**20:.0f} MiB" if taken else ""
    sentence = f"The memory of the GPU is too small for the model and its context{already}."
    command = (
        "Llama(..., n_gpu_layers=N) with fewer layers, a smaller n_ctx, or a smaller quantisation  "
        "# nvidia-smi shows what else holds memory"
    )
    return Diagnosis(Code.OUT_OF_MEMORY, sentence, command)


def driver_too_old(signs: Signs) -> str | None:
    """Say why a driver is too old although it supports the CUDA version of the build; ``None`` if it does not."""
    return {
        "ptx_too_new": "the build has PTX of a newer CUDA toolkit than the driver can compile, and no machine code",
        "forward_compatibility": "the container brings a newer CUDA than the driver of its host supports",
    }.get(signs.driver_error or "")


def _out_of_memory(load: Load) -> Diagnosis | None:
    return out_of_memory(load) if load.signs.out_of_memory else None


def _no_kernel(load: Load) -> Diagnosis | None:
    signs = load.signs
    if not signs.no_kernel:
        return None
    found = [device.capability for device in signs.found]
    if signs.rocm:
        return Diagnosis(
            Code.CARD_NOT_COVERED, "The build has no code that this AMD GPU can run.", remedies.BUILD_FOR_AMD
        )
    if not found and signs.code_for:  # 520: 5.2, as nvcc counts
        found = [f"{int(signs.code_for) // 100}.{int(signs.code_for) // 10 % 10}"]
    named = [f"{device.name} (compute capability {device.capability})" for device in signs.found]
    gpus = ", ".join(named) or ", ".join(f"a GPU of compute capability {each}" for each in found) or "the GPU"
    sentence = f"The build has no CUDA code that {gpus} can run."
    return Diagnosis(Code.CARD_NOT_COVERED, sentence, remedies.build_for(found))


def _illegal_instruction(load: Load) -> Diagnosis | None:
    if not load.signs.illegal_instruction:
        return None
    sentence = "llama_cpp crashed with an illegal instruction: the build uses instructions that the CPU lacks."
    command = "CMAKE_ARGS=-DGGML_NATIVE=off python -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    return Diagnosis(Code.CRASHED, sentence, command)


def _library(load: Load) -> Diagnosis | None:
    name, error = load.signs.missing_library, load.signs.import_error
    said = f"{name} cannot be loaded" if name else error
    if said is None:
        return None
    failure = import_errors.classify(name or said)
    if failure.code is Code.DRIVER_MISSING:
        return Diagnosis(failure.code, f"The NVIDIA driver is missing: {said}.", remedies.install_any_driver())
    if failure.code is Code.CUDA_LIBRARY_MISSING:
        command = remedies.install_libraries(Facts(machine=Machine(system="")), [name]) if name else failure.fix
        return Diagnosis(failure.code, f"A CUDA library is missing: {said}.", command)
    fix = import_errors.fix(name or said, "python -m pip install")
    if fix is None and not name:
        fix = "python -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    sentence = f"llama_cpp cannot be imported: {failure.meaning} ({said})."
    return Diagnosis(failure.code, sentence, fix or REMEDY_EXAMINE)


def _driver_too_old(load: Load) -> Diagnosis | None:
    signs = load.signs
    if not signs.driver_too_old:
        return None
    why = driver_too_old(signs)
    sentence = f"The NVIDIA driver is too old for the CUDA version of the build{f': {why}' if why else ''}."
    command = remedies.install_any_driver(update=True)
    if signs.driver_error == "forward_compatibility":
        command += "; or an image with an older CUDA, without its compat libraries"
    if signs.driver_error == "ptx_too_new" and signs.found:
        command += f"; or {remedies.build_for(device.capability for device in signs.found)}"
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, command)


def _gpu_lost(load: Load) -> Diagnosis | None:
    said = load.signs.gpu_lost
    sentence = f"The NVIDIA driver or the GPU failed: {said}."
    return Diagnosis(Code.DRIVER_BROKEN, sentence, REMEDY_ASK_DRIVER) if said else None


def _gpu_failed(load: Load) -> Diagnosis | None:
    said = load.signs.gpu_failed
    sentence = f"The GPU or its driver failed: {said}."
    return Diagnosis(Code.CRASHED, sentence, REMEDY_RESTART) if said else None


def _init_failed(load: Load) -> Diagnosis | None:
    signs = load.signs
    if signs.no_device:
        sentence = (
            "The build finds no GPU: CUDA_VISIBLE_DEVICES hides it, the container did not get it, or there is none."
        )
        return Diagnosis(Code.CARD_HIDDEN, sentence, REMEDY_EXAMINE)
    if signs.init_error is None:
        return None
    return Diagnosis(Code.DRIVER_BROKEN, f"CUDA does not start: {signs.init_error}.", REMEDY_ASK_DRIVER)


def _other_cuda_error(load: Load) -> Diagnosis | None:
    said = load.signs.cuda_error
    return Diagnosis(Code.CRASHED, f"CUDA failed: {said}.", REMEDY_ASK_KERNEL) if said else None


def _crashed(load: Load) -> Diagnosis | None:
    said = load.signs.crash
    sentence = f"The process that used llama_cpp was ended: {said}."
    return Diagnosis(Code.CRASHED, sentence, REMEDY_EXAMINE) if said else None


def _load_error(load: Load) -> Diagnosis | None:
    said = load.signs.load_error
    if said is None:
        return None
    sentence = f"llama.cpp could not use the model: {said}."
    command = "another GGUF file, or a newer llama-cpp-python if the file is newer  # --model of check_gpu tries a file"
    return Diagnosis(Code.MODEL_NOT_LOADED, sentence, command)


# -------------------------------------------------------------------------------------------------------------- places


def _in_use(load: Load) -> Diagnosis | None:
    if not layers.all_on_gpu(load):
        return None
    where = layers.where(load)
    if any(SIMULATED in name for name in load.signs.device_names):
        return Diagnosis(Code.SIMULATED, f"All layers were on a simulated device: {where}. It is not a GPU.")
    sentence = f"The GPU was used: {layers.whole(load)} were on {where}."
    if layers.is_excerpt(load):
        total = load.signs.placements.offloaded[1] if load.signs.placements.offloaded else 0
        sentence = f"The GPU was used: llama.cpp says that it offloaded all {total} layers to {where}."
    return Diagnosis(Code.CARD_USED, sentence)


def _wheel_reason(load: Load) -> Diagnosis | None:
    reason = load.signs.wheel_reason
    sentence = f"The wheel says why CUDA is not in use: {reason}"
    return Diagnosis(Code.BACKEND_NOT_LOADED, sentence, REMEDY_EXAMINE) if reason else None


def _cpu_only(load: Load) -> Diagnosis | None:
    signs = load.signs
    if not (signs.no_gpu_code or signs.cuda_built_in is False) or layers.any_on_gpu(load):
        return None
    if not layers.none_on_gpu(load) and not (signs.no_gpu_code and signs.placements.offloaded is None):
        return None
    if signs.no_gpu_code:
        sentence = "All layers were on the CPU: the log says that the build has no code for any GPU (BLAS = 0)."
        return Diagnosis(Code.CPU_ONLY_BUILD, sentence, remedies.BUILD_ANY)
    sentence = (
        "All layers were on the CPU, and the features in the log do not name CUDA: it was not built in or not loaded."
    )
    return Diagnosis(Code.CPU_ONLY_BUILD, sentence, REMEDY_EXAMINE)


def _nothing(load: Load) -> Diagnosis | None:
    if layers.none_on_gpu(load) or layers.any_on_gpu(load):
        return None
    sentence = "The log does not say where any layer is: llama.cpp did not write it, or ran with verbose=False."
    if not any(line.strip() for line in load.log) and load.signs == Signs():
        sentence = "The log is empty: llama.cpp prints to stderr, and only with verbose=True."
    return Diagnosis(Code.LOG_SAYS_NOTHING, sentence, "Llama(..., verbose=True), and keep what it prints: 2> FILE")


def _on_cpu(_load: Load) -> Diagnosis | None:
    return Diagnosis(Code.UNKNOWN, "All layers were on the CPU, and the log does not say why.", REMEDY_EXAMINE)


CAUSES: tuple[Cause, ...] = (
    _no_kernel,
    _out_of_memory,
    _illegal_instruction,
    _library,
    _driver_too_old,
    _gpu_lost,
    _gpu_failed,
    _init_failed,
    _other_cuda_error,
    _crashed,
    _load_error,
    _in_use,
    layers.problem,
    _wheel_reason,
    _cpu_only,
    _nothing,
    _on_cpu,
)
