"""What a log alone says. It knows less than a look at the installation does, and says so."""

from __future__ import annotations

from typing import Callable, Optional

from check_gpu import layers, remedies
from check_gpu.facts import SIMULATED, Facts, Load
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Facts], Optional[Diagnosis]]

ASK_DRIVER = "nvidia-smi  # it fails too? restart the machine, then install the driver again"
ASK_KERNEL = "sudo dmesg | grep Xid  # lines there: the card or its driver failed, restart; none: report it with --json"
LOOK = "python check_gpu.pyz --python PYTHON  # where it ran: the log alone does not say more"


def out_of_memory(load: Load) -> Diagnosis:
    """The memory of the card was not enough."""
    buffers = [buffer for buffer in load.signs.placements.buffers if buffer.on_card]
    taken = sum(buffer.size for buffer in buffers)
    already = f", after {taken / 2**20:.0f} MiB of it were taken by the model" if taken else ""
    sentence = f"The memory of the card is not enough for the model with its context{already}."
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
    sentence = "It crashed with an illegal instruction: the build uses instructions that the CPU lacks."
    command = "CMAKE_ARGS=-DGGML_NATIVE=off python -m pip install --force-reinstall --no-cache-dir llama-cpp-python"
    return Diagnosis(Code.CRASHED, sentence, command)


def _library(facts: Facts) -> Diagnosis | None:
    name = _load(facts).signs.missing_library
    if name is None:
        return None
    said = f"{name} cannot be loaded"
    if name.startswith("libcuda.so"):
        return Diagnosis(Code.DRIVER_MISSING, f"The NVIDIA driver is missing: {said}.", remedies.driver(facts.machine))
    if name.startswith(("libcudart", "libcublas", "libnccl")):
        command = remedies.libraries(facts, [name])
        return Diagnosis(Code.CUDA_LIBRARY_MISSING, f"A library of CUDA is missing: {said}.", command)
    return Diagnosis(Code.IMPORT_FAILED, f"llama_cpp cannot be imported: {said}.", LOOK)


def _driver_too_old(facts: Facts) -> Diagnosis | None:
    if not _load(facts).signs.driver_too_old:
        return None
    sentence = "The NVIDIA driver is older than the CUDA of the build."
    return Diagnosis(Code.DRIVER_TOO_OLD, sentence, remedies.driver(facts.machine))


def _no_kernel(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if not signs.no_kernel:
        return None
    cards = ", ".join(f"{device.name} (compute capability {device.capability})" for device in signs.found) or "the card"
    archs = sorted({device.capability.replace(".", "") for device in signs.found}, key=int)
    command = f"nox -s build_cuda_wheel -- --arch {','.join(archs) or 'native'}  # in a checkout of llama-cuda-wheels"
    return Diagnosis(Code.CARD_NOT_COVERED, f"The build has no CUDA code that {cards} can run.", command)


def _init_failed(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if signs.init_error is None:
        return None
    if "no CUDA-capable device" in signs.init_error:
        sentence = "CUDA finds no card: hidden by CUDA_VISIBLE_DEVICES, not given to a container, or not there."
        return Diagnosis(Code.CARD_HIDDEN, sentence, LOOK)
    return Diagnosis(Code.DRIVER_BROKEN, f"CUDA does not start: {signs.init_error}.", ASK_DRIVER)


def _other_cuda_error(facts: Facts) -> Diagnosis | None:
    said = _load(facts).signs.cuda_error
    return Diagnosis(Code.CRASHED, f"CUDA failed: {said}.", ASK_KERNEL) if said else None


def _in_use(facts: Facts) -> Diagnosis | None:
    load = _load(facts)
    if not layers.all_on_card(load):
        return None
    where = layers.where(load)
    if any(SIMULATED in name for name in load.signs.device_names):
        return Diagnosis(Code.SIMULATED, f"All layers were on a simulated device: {where}. It is no card.")
    return Diagnosis(Code.CARD_USED, f"The card was used: all layers and their KV cache were on {where}.")


def _layers(facts: Facts) -> Diagnosis | None:
    load = _load(facts)
    return layers.not_requested(load) or layers.left_on_cpu(load) or layers.cache_on_cpu(load)


def _wheel_reason(facts: Facts) -> Diagnosis | None:
    reason = _load(facts).signs.wheel_reason
    return (
        Diagnosis(Code.BACKEND_NOT_LOADED, f"The wheel says why CUDA is not in use: {reason}", LOOK) if reason else None
    )


def _cpu_only(facts: Facts) -> Diagnosis | None:
    signs = _load(facts).signs
    if not signs.placements.layers or signs.cuda_built_in is not False:
        return None
    sentence = (
        "All layers were on the CPU, and the features in the log do not name CUDA: it was not built in or not loaded."
    )
    return Diagnosis(Code.CPU_ONLY_BUILD, sentence, LOOK)


def _nothing(facts: Facts) -> Diagnosis | None:
    placements = _load(facts).signs.placements
    if placements.layers or placements.offloaded is not None:
        return None
    sentence = "The log does not say where any layer is: it is not of llama.cpp, or was made with verbose=False."
    return Diagnosis(Code.LOG_SAYS_NOTHING, sentence, "Llama(..., verbose=True), and keep what it prints: 2> FILE")


def _on_cpu(_facts: Facts) -> Diagnosis | None:
    return Diagnosis(Code.UNKNOWN, "All layers were on the CPU, and the log does not say why.", LOOK)


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
