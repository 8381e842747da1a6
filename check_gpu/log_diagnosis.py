"""Diagnoses a log alone. A log shows less than an examined installation, and the answer says so."""

from __future__ import annotations

from typing import Callable, Optional

from check_gpu import layers, remedies
from check_gpu.facts import SIMULATED, Facts, Load
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Facts], Optional[Diagnosis]]

REMEDY_ASK_DRIVER = "nvidia-smi  # if it fails too: restart the machine, then install the driver again"
REMEDY_ASK_KERNEL = (
    "sudo dmesg | grep Xid  # if it prints lines, the GPU or its driver failed: restart; if not, report it with --json"
)
REMEDY_EXAMINE = "python check_gpu.pyz --python PYTHON  # on the machine of the log, which alone shows no more"


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


def _out_of_memory(facts: Facts) -> Diagnosis | None:
    load = _load(facts)
    return out_of_memory(load) if load.signs.out_of_memory else None


def _illegal_instruction(facts: Facts) -> Diagnosis | None:
    if not _load(facts).signs.illegal_instruction:
        return None
    sentence = "llama_cpp crashed with an illegal instruction: the build uses instructions that the CPU lacks."
    command = "CMAKE_ARGS=-DGGML_NATIVE=off python -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    return Diagnosis(Code.CRASHED, sentence, command)


def _library(facts: Facts) -> Diagnosis | None:
    name = _load(facts).signs.missing_library
    if name is None:
        return None
    said = f"{name} cannot be loaded"
    if name.startswith("libcuda.so"):
        command = remedies.install_driver(facts.machine)
        return Diagnosis(Code.DRIVER_MISSING, f"The NVIDIA driver is missing: {said}.", command)
    if name.startswith(("libcudart", "libcublas", "libnccl")):
        command = remedies.install_libraries(facts, [name])
        return Diagnosis(Code.CUDA_LIBRARY_MISSING, f"A CUDA library is missing: {said}.", command)
    return Diagnosis(Code.IMPORT_FAILED, f"llama_cpp cannot be imported: {said}.", REMEDY_EXAMINE)


def _driver_too_old(facts: Facts) -> Diagnosis | None:
    if not _load(facts).signs.driver_too_old:
        return None
    sentence = "The NVIDIA driver is too old for the CUDA version of the build."
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, remedies.install_driver(facts.machine))


def _no_kernel(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if not signs.no_kernel:
        return None
    gpus = ", ".join(f"{device.name} (compute capability {device.capability})" for device in signs.found) or "the GPU"
    archs = sorted({device.capability.replace(".", "") for device in signs.found}, key=int)
    command = f"nox -s build_cuda_wheel -- --arch {','.join(archs) or 'native'}  # in a checkout of llama-cuda-wheels"
    return Diagnosis(Code.CARD_NOT_COVERED, f"The build has no CUDA code that {gpus} can run.", command)


def _init_failed(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if signs.init_error is None:
        return None
    if "no CUDA-capable device" in signs.init_error:
        sentence = "CUDA finds no GPU: CUDA_VISIBLE_DEVICES hides it, the container did not get it, or there is none."
        return Diagnosis(Code.CARD_HIDDEN, sentence, REMEDY_EXAMINE)
    return Diagnosis(Code.DRIVER_BROKEN, f"CUDA does not start: {signs.init_error}.", REMEDY_ASK_DRIVER)


def _other_cuda_error(facts: Facts) -> Diagnosis | None:
    said = _load(facts).signs.cuda_error
    return Diagnosis(Code.CRASHED, f"CUDA failed: {said}.", REMEDY_ASK_KERNEL) if said else None


def _in_use(facts: Facts) -> Diagnosis | None:
    load = _load(facts)
    if not layers.all_on_gpu(load):
        return None
    where = layers.where(load)
    if any(SIMULATED in name for name in load.signs.device_names):
        return Diagnosis(Code.SIMULATED, f"All layers were on a simulated device: {where}. It is not a GPU.")
    return Diagnosis(Code.CARD_USED, f"The GPU was used: {layers.whole(load)} were on {where}.")


def _layers(facts: Facts) -> Diagnosis | None:
    load = _load(facts)
    return layers.not_requested(load) or layers.left_on_cpu(load) or layers.cache_on_cpu(load)


def _wheel_reason(facts: Facts) -> Diagnosis | None:
    reason = _load(facts).signs.wheel_reason
    return (
        Diagnosis(Code.BACKEND_NOT_LOADED, f"The wheel says why CUDA is not in use: {reason}", REMEDY_EXAMINE)
        if reason
        else None
    )


def _cpu_only(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if not signs.placements.layers or signs.cuda_built_in is not False:
        return None
    sentence = (
        "All layers were on the CPU, and the features in the log do not name CUDA: it was not built in or not loaded."
    )
    return Diagnosis(Code.CPU_ONLY_BUILD, sentence, REMEDY_EXAMINE)


def _nothing(facts: Facts) -> Diagnosis | None:
    placements = _load(facts).signs.placements
    if placements.layers or placements.offloaded is not None:
        return None
    sentence = "The log does not say where any layer is: llama.cpp did not write it, or ran with verbose=False."
    return Diagnosis(Code.LOG_SAYS_NOTHING, sentence, "Llama(..., verbose=True), and keep what it prints: 2> FILE")


def _on_cpu(_facts: Facts) -> Diagnosis | None:
    return Diagnosis(Code.UNKNOWN, "All layers were on the CPU, and the log does not say why.", REMEDY_EXAMINE)


CAUSES: tuple[Cause, ...] = (
    _out_of_memory,
    _no_kernel,
    _illegal_instruction,
    _library,
    _driver_too_old,
    _init_failed,
    _other_cuda_error,
    _in_use,
    _layers,
    _wheel_reason,
    _cpu_only,
    _nothing,
    _on_cpu,
)


def _load(facts: Facts) -> Load:
    assert facts.load is not None  # noqa: S101  # for the type checker: without an installation there is a log
    return facts.load
