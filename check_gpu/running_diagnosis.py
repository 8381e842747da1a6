"""Diagnoses a running program: whether its model is on the GPU, as far as that is seen from outside.

Memory on the GPU alone proves little: a CUDA build holds some even if the CPU computes every layer. So the GPU counts
as used only if the part of the model that is not in the memory of the machine fits into what the program holds there.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Callable, Optional

from check_gpu import layers, remedies, shell
from check_gpu.facts import SIMULATED, Facts, Running
from check_gpu.result import Code, Diagnosis

Cause = Callable[[Facts], Optional[Diagnosis]]

REMEDY_LOG = "Llama(..., verbose=True), and keep what it prints: 2> FILE; then: python check_gpu.pyz --log FILE"

_WITHOUT_LAYERS = 1 << 30
"""Bytes that CUDA, cuBLAS and the buffers of a model can take although no layer is on the GPU; mostly half of it."""
_OTHER_BACKENDS = ("vulkan", "hip", "sycl", "metal", "musa", "opencl")
_CUDA = ("libcuda.so", "libcudart", "libcublas")
_OTHERS = ("torch_cuda", "tensorflow", "xla", "onnxruntime", "ctranslate2", "cudnn")
_NOTHING = {"", "-1", "none", "void", "NoDevFiles"}


def diagnose(facts: Facts) -> Diagnosis:
    """Return the diagnosis; ``unknown``, with what is seen and what is not, if nothing else is certain."""
    found = (cause(facts) for cause in CAUSES)
    return next((diagnosis for diagnosis in found if diagnosis is not None), _unknown(facts))


# ------------------------------------------------------------------------------------------------------ what it is


def _ended(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    if not program.ended:
        return None
    sentence = f"Process {program.pid} ended while it was examined, so nothing is known about its use of the GPU."
    return Diagnosis(Code.UNKNOWN, sentence, REMEDY_LOG)


def _not_permitted(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    if program.seen:
        return None
    sentence = f"This user cannot see what process {program.pid} uses: {'; '.join(program.unseen)}."
    if program.memory:
        sentence += f" It holds {_held(program)}, for whatever purpose."
    return Diagnosis(Code.UNKNOWN, sentence, f"sudo python check_gpu.pyz --pid {program.pid}")


def _not_llama(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    if _is_llama(program) or program.models:
        return None
    sentence = f"Process {program.pid} ({_name(program)}) has loaded no library of llama.cpp and maps no GGUF file"
    held = f"; what it holds on a GPU ({_held(program)}) is something else" if program.memory else ""
    command = "--pid of the process that runs the model: a server may start another one for it (ps --forest)"
    return Diagnosis(Code.UNKNOWN, f"{sentence}{held}.", command)


def _simulated(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    drivers = [file for file in _libraries(program, "libcuda.so") if program.shares_files and _is_simulated(file)]
    if not drivers:
        return None
    sentence = (
        f"Process {program.pid} runs on a simulated driver, {drivers[0]}: whatever it computes, no GPU is in use."
    )
    return Diagnosis(Code.UNKNOWN, sentence, "start it without that library in LD_PRELOAD or LD_LIBRARY_PATH")


# ------------------------------------------------------------------------------------------------------- all is well


def _in_use(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    total = sum(each.used or 0 for each in program.memory or ())
    if not total or not _has_cuda_code(facts) or any(model.problem or model.in_memory for model in program.models):
        return None
    if program.models:
        on_gpu = sum(model.size - model.mapped for model in program.models)
        evidence = f"of {_files(program)}, {_size(on_gpu)} are no longer in the memory of the machine, and no layer is"
        enough = total >= on_gpu > 0
    else:
        evidence = f"only {_size(program.resident or 0)} are in the memory of the machine"
        alone = not _libraries(program, *_OTHERS)
        enough = alone and program.resident is not None and total > max(program.resident, _WITHOUT_LAYERS)
    if not enough:
        return None
    sentence = f"The GPU is used: process {program.pid} ({_name(program)}) holds {_held(program)}; {evidence}."
    return Diagnosis(Code.CARD_USED, f"{sentence} The place of its KV cache cannot be seen from outside.")


# ------------------------------------------------------------------------------------------------------------- causes


def _no_gpu(facts: Facts) -> Diagnosis | None:
    driver = facts.driver
    without = driver is not None and driver.failure is None and not (driver.devices or driver.cards)
    if facts.machine.card_on_bus is not False or facts.machine.wsl or not without or _program(facts).devices:
        return None
    return Diagnosis(Code.NO_CARD, "This machine has no NVIDIA GPU, so the model runs on the CPU.")


def _another_backend(facts: Facts) -> Diagnosis | None:
    """A build for other GPUs, or that uses NVIDIA's without CUDA, leaves no trace that is understood here."""
    program = _program(facts)
    others = _other_backends(program)
    nvidia = facts.driver is not None and bool(facts.driver.devices)
    if not others or _has_cuda_code(facts) or (nvidia and program.memory == () and not _opens_a_gpu(program)):
        return None
    sentence = f"The llama.cpp in process {program.pid} has no CUDA, but {', '.join(others)}"
    sentence += ": whether that uses a GPU cannot be seen from outside"
    return Diagnosis(Code.UNKNOWN, f"{sentence}.", REMEDY_LOG)


def _no_cuda_in_use(facts: Facts) -> Diagnosis | None:
    """CUDA is in a module of its own, in llama.cpp's library, or not there at all."""
    program, installation = _program(facts), facts.installation
    if _has_cuda_code(facts) or not _is_llama(program):
        return None
    there = [Path(library.file).name for library in installation.cuda] if installation else []
    if installation is not None and installation.own and not _libraries(program, "ggml-cpu"):
        return None  # our wheel loads its modules with the first model
    if installation is None and _libraries(program, *_CUDA):
        return None  # older releases have CUDA inside libllama.so, which cannot be read here
    if installation is not None and there:
        sentence = f"Process {program.pid} has not loaded {', '.join(there)}, the CUDA code of its build"
        command = f"python check_gpu.pyz --python {shell.quote([installation.python])}  # says why"
        return Diagnosis(Code.BACKEND_NOT_LOADED, f"{sentence}, so it computes on the CPU.", command)
    others = _other_backends(program)
    kind = f"has no CUDA, only {', '.join(others)}" if others else "is a CPU-only build"
    sentence = f"The llama.cpp in process {program.pid} {kind}: it has loaded no library with CUDA code"
    return Diagnosis(Code.CPU_ONLY_BUILD, f"{sentence}.", remedies.install_cuda_build(facts))


def _hidden(facts: Facts) -> Diagnosis | None:
    program = _program(facts)
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        value = program.variables.get(name)
        if value in _NOTHING and not program.memory and not _opens_a_gpu(program):
            sentence = f"Process {program.pid} was started with {name}={value!r}, which hides every GPU from it."
            command = f"{remedies.unset_variable(facts.machine, name)}, then start it again"
            return Diagnosis(Code.CARD_HIDDEN, sentence, command)
    return None


def _in_main_memory(facts: Facts) -> Diagnosis | None:
    """Layers that are still mapped are computed by the CPU, or are being loaded."""
    program = _program(facts)
    left = [model for model in program.models if model.in_memory]
    if not left or not _has_cuda_code(facts):
        return None
    places = "; ".join(
        f"{len(each.in_memory)} of {len(each.layers)} layers of {_base(each.file)} ({layers.ranges(each.in_memory)})"
        for each in left
    )
    sentence = f"In process {program.pid}, {places} are in the memory of the machine: the CPU computes them"
    sentence += ", or they are still being loaded"
    held = f". It holds {_held(program)}" if program.memory else ""
    all_left = all(len(model.in_memory) == len(model.layers) for model in left) and left == [*program.models]
    code = Code.NO_LAYERS_REQUESTED if all_left else Code.LAYERS_LEFT_ON_CPU
    command = "Llama(..., n_gpu_layers=-1)  # if that runs out of memory: a smaller quantisation, or a smaller n_ctx"
    return Diagnosis(code, f"{sentence}{held}.", command)


def _unknown(facts: Facts) -> Diagnosis:
    """Say what is seen, and what is not."""
    program = _program(facts)
    devices = ", ".join(program.devices)
    parts = [f"has {devices} open" if devices else "has no device of the NVIDIA driver open"]
    if program.memory is not None:
        parts.append(f"holds {_held(program)}" if program.memory else "holds no memory on any GPU")
    if not program.models:
        parts.append("maps no model, so the place of its layers cannot be seen")
    parts += [
        f"maps {_base(model.file)}, which cannot be read ({model.problem})" for model in program.models if model.problem
    ]
    sentence = f"Process {program.pid} ({_name(program)}) {', '.join(parts)}. Whether it uses the GPU is not known"
    unseen = f"; not visible: {'; '.join(program.unseen)}" if program.unseen else ""
    return Diagnosis(Code.UNKNOWN, f"{sentence}{unseen}.", REMEDY_LOG)


CAUSES: tuple[Cause, ...] = (
    _ended,
    _not_permitted,
    _not_llama,
    _simulated,
    _in_use,
    _another_backend,
    _no_gpu,
    _no_cuda_in_use,
    _hidden,
    _in_main_memory,
)


def _program(facts: Facts) -> Running:
    assert facts.running is not None  # noqa: S101  # for the type checker: only such facts come here
    return facts.running


def _has_cuda_code(facts: Facts) -> bool:
    """Whether llama.cpp's own CUDA code is loaded. Another library in the same process may use CUDA, too."""
    program = _program(facts)
    with_code = {library.file for library in facts.installation.cuda} if facts.installation else set()
    one_file = not _libraries(program, "llama", "ggml") and _libraries(program, *_CUDA)  # llama.cpp is inside it
    return bool(one_file or _libraries(program, "ggml-cuda", "ggml_cuda") or with_code.intersection(program.libraries))


def _is_llama(program: Running) -> bool:
    return bool(_libraries(program, "llama", "ggml")) or "llama" in _base(program.executable)


def _other_backends(program: Running) -> list[str]:
    return [_base(file) for file in _libraries(program, *(f"ggml-{kind}" for kind in _OTHER_BACKENDS))]


def _libraries(program: Running, *parts: str) -> list[str]:
    return [file for file in program.libraries if any(part in _base(file) for part in parts)]


def _opens_a_gpu(program: Running) -> bool:
    return any(device == "/dev/dxg" or device[len("/dev/nvidia") :].isdigit() for device in program.devices)


def _is_simulated(file: str) -> bool:
    try:
        with open(file, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:  # noqa: PTH123
            return data.find(f"{SIMULATED} device".encode()) >= 0
    except (OSError, ValueError):
        return False


def _held(program: Running) -> str:
    """The memory on each GPU in words."""
    return ", ".join(
        f"{_size(each.used)} on GPU {each.index} ({each.name})"
        if each.used is not None
        else f"memory on GPU {each.index} ({each.name}), whose size the driver does not tell"
        for each in program.memory or ()
    )


def _files(program: Running) -> str:
    return ", ".join(f"{_base(model.file)} ({_size(model.size)})" for model in program.models)


def _base(file: str) -> str:
    return file.rpartition("/")[2]


def _name(program: Running) -> str:
    words = program.program.split(" ")
    return _base(words[0]) or "without a name"


def _size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
