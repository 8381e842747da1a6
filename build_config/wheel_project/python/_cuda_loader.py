# ruff: noqa: INP001  # a module of llama_cpp in the finished wheel, not of the pipeline
"""Loads the compute backends of this wheel, and says why CUDA is not in use.

The backends are modules in ``llama_cpp/lib``: CPU variants (``libggml-cpu-*``) and CUDA shards (``libggml-cuda-*``),
each shard for some GPUs. ggml asks every module how well it fits this machine and takes the best. A CUDA shard can be
loaded only if the NVIDIA driver, the CUDA runtime and cuBLAS are there. Modules are searched in this package only.

``_first_use`` calls ``load_safely`` when a backend is first needed. Standard library only; works on Python 3.8 and
later.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Tuple  # noqa: UP035  # Python 3.8

from ._cuda_libraries import Library, install_command, load_library, search_installed_toolkit, why, windows_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from check_gpu import coverage as _gpu_coverage
    from check_gpu.children import driver as _cuda_driver
else:  # copies of these two, which the build puts next to this module
    from . import _cuda_driver, _gpu_coverage

PACKAGE = Path(__file__).resolve().parent
LIB = PACKAGE / "lib"

Messages = List[Tuple[int, str]]  # noqa: UP006  # Python 3.8
"""Level and text of each, for the log."""

_log = logging.getLogger("llama_cpp.cuda")
"""Not upstream's own logger: ``Llama(verbose=False)`` would silence it."""


@dataclass(frozen=True)
class Device:
    """A GPU as the driver shows it to this process. ``capability`` is like ``8.9``, ``memory`` is in bytes."""

    index: int
    name: str
    capability: str
    memory: int


@dataclass(frozen=True)
class CudaStatus:
    """Whether CUDA is in use, and if not, why.

    ``shard`` is the CUDA module in use (``sm89``), ``driver_cuda`` the newest CUDA that the driver runs (``13.0``),
    ``covered_archs`` what this wheel has code for (``89-real``), ``cpu_variant`` the CPU module in use (``zen4``).
    ``libraries`` is empty if there is no GPU to load them for. ``reason`` is one sentence with the remedy, and ``None``
    exactly when ``loaded``. ``left_out`` are those of ``devices`` that ``shard`` has no code for, and ``note`` says how
    to use them, too. ``main_gpu`` and ``tensor_split`` count the devices that are not left out.
    """

    loaded: bool
    shard: str | None = None
    devices: tuple[Device, ...] = ()
    libraries: tuple[Library, ...] = ()
    driver_cuda: str | None = None
    covered_archs: tuple[str, ...] = ()
    reason: str | None = None
    cpu_variant: str | None = None
    left_out: tuple[Device, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class _Shard:
    name: str
    file: str
    archs: tuple[str, ...]

    def runs_on(self, device: Device) -> bool:
        return any(_gpu_coverage.runs_on(arch, device.capability) for arch in self.archs)


@dataclass(frozen=True)
class _Build:
    """``_cuda_build.json``: the CUDA release and the shards of this wheel."""

    cuda: str
    shards: tuple[_Shard, ...]
    oldest_driver: str
    libraries: tuple[str, ...]
    build_command: str

    @property
    def archs(self) -> tuple[str, ...]:
        return tuple(arch for shard in self.shards for arch in shard.archs)


def _read_build(path: Path) -> _Build:
    data = json.loads(path.read_text(encoding="utf-8"))
    shards = tuple(_Shard(item["name"], item["file"], tuple(item["archs"])) for item in data["shards"])
    libraries = tuple(data["libraries"])
    return _Build(data["cuda"], shards, data["oldest_driver"], libraries, data["build_command"])


@dataclass(frozen=True)
class _Driver:
    """The driver's answer.

    ``problem`` is a sentence, and ``None`` if there is a GPU to use. ``failed``: a driver is there and does not start.
    """

    cuda: str | None = None
    devices: tuple[Device, ...] = ()
    problem: str | None = None
    failed: bool = False


def _ask_driver() -> _Driver:
    """Ask the CUDA driver API itself: it needs nothing but the driver."""
    answer = _cuda_driver.ask_cuda()
    on_linux = sys.platform != "win32"
    if "problem" in answer:
        container = "; a container needs the NVIDIA runtime (docker run --gpus all)" if on_linux else ""
        remedy = f"install the GPU's driver{container}"
        return _Driver(problem=f"No NVIDIA driver can be loaded ({answer['problem']}): {remedy}.")
    cuda, error = answer["cuda"], answer["error"]
    devices = tuple(Device(**device) for device in answer["devices"])
    if devices:
        return _Driver(cuda, devices)
    if error == 3:  # CUDA_ERROR_NOT_INITIALIZED  # noqa: PLR2004
        remedy = "start CUDA only after the fork, or start processes with multiprocessing's method spawn"
        started = "CUDA was started, perhaps by another package, before this process was forked"
        return _Driver(cuda, problem=f"{started}, and a forked process cannot use it: {remedy}.", failed=True)
    if error not in (0, 100):  # CUDA_ERROR_NO_DEVICE
        remedy = "restart the machine if the driver was just updated, otherwise install it again"
        return _Driver(cuda, problem=f"The NVIDIA driver does not start (CUDA error {error}): {remedy}.", failed=True)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return _Driver(
            cuda, problem=f"CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU: unset it or name the index of a GPU."
        )
    container = "; a container needs --gpus all" if on_linux else ""
    return _Driver(cuda, problem=f"The NVIDIA driver finds no GPU: check that nvidia-smi lists it{container}.")


@dataclass(frozen=True)
class _Backend:
    """A backend that ggml has registered, and its file."""

    name: str
    devices: int
    file: str | None

    @property
    def variant(self) -> str | None:
        """``sm89`` for ``libggml-cuda-sm89.so``."""
        match = re.match(r"(?:lib)?ggml-[a-z]+-([^.]+)", Path(self.file or "").name)
        return match[1] if match else None


def _load_backends() -> tuple[dict[str, _Backend], list[str]]:
    """Let ggml load the best module of each kind from this package; the backends by name, and what ggml logged.

    Without a folder ggml would search the current directory, where anybody may have put a library. Once a backend is
    registered, llama.cpp does not search by itself.
    """
    from llama_cpp._ctypes_extensions import load_shared_library  # noqa: PLC0415  # nothing may fail at import

    ggml, base = load_shared_library("ggml", LIB), load_shared_library("ggml-base", LIB)
    with _captured_messages(base) as messages:
        _function(ggml, "ggml_backend_load_all_from_path", None, ctypes.c_char_p)(os.fsencode(LIB))
    backend_at = _function(ggml, "ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
    name_of = _function(base, "ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
    devices_of = _function(base, "ggml_backend_reg_dev_count", ctypes.c_size_t, ctypes.c_void_p)
    found = {}
    for index in range(_function(ggml, "ggml_backend_reg_count", ctypes.c_size_t)()):
        backend = backend_at(index)
        name = name_of(backend).decode()
        found[name] = _Backend(name, devices_of(backend), _file_at(backend))
    return found, "".join(messages).splitlines()


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    """A function with its C types; upstream's own objects for it, with types of their own, stay as they are."""
    function = library[name]
    function.restype, function.argtypes = result, arguments
    return function


@contextlib.contextmanager
def _captured_messages(base: ctypes.CDLL) -> Iterator[list[str]]:
    """Collect what ggml logs instead of letting every import print it."""
    messages: list[str] = []
    callback_type = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    collect = callback_type(lambda _level, text, _data: messages.append(text.decode(errors="replace")))
    set_callback = _function(base, "ggml_log_set", None, ctypes.c_void_p, ctypes.c_void_p)
    callback, data = ctypes.c_void_p(), ctypes.c_void_p()
    _function(base, "ggml_log_get", None, ctypes.c_void_p, ctypes.c_void_p)(ctypes.byref(callback), ctypes.byref(data))
    set_callback(collect, None)
    try:
        yield messages
    finally:
        set_callback(callback, data)


def _file_at(address: int) -> str | None:
    """The library that holds ``address``. A list of loaded files would also have those that ggml rejected."""
    if sys.platform == "win32":
        module = ctypes.c_void_p()
        from_address = 0x4 | 0x2  # GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | ..._UNCHANGED_REFCOUNT
        ctypes.windll.kernel32.GetModuleHandleExW(from_address, ctypes.c_void_p(address), ctypes.byref(module))
        return windows_path(module.value)

    info = (ctypes.c_char_p * 4)()  # Dl_info: the file, its base address, the nearest symbol, the symbol's address
    dladdr = _function(ctypes.CDLL(None), "dladdr", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    return os.fsdecode(info[0] or b"") if dladdr(address, info) else None


def _why_not(build: _Build, driver: _Driver, libraries: Sequence[Library], messages: Sequence[str]) -> str:
    """The first obstacle to CUDA, in one sentence with its remedy."""
    if driver.problem:
        return driver.problem
    if _major(driver.cuda) < _major(build.cuda):
        return (
            f"The NVIDIA driver runs CUDA {driver.cuda} at most and this wheel needs CUDA {build.cuda}: "
            f"install driver {build.oldest_driver} or later, or build a wheel for the CUDA of your driver."
        )
    missing = [library.error for library in libraries if library.error]
    if missing:
        return f"CUDA's libraries are missing, {', '.join(missing)}: {install_command(_major(build.cuda))}."
    fitting = [shard for shard in build.shards if any(shard.runs_on(device) for device in driver.devices)]
    if not fitting:
        return (
            f"This wheel has code for {', '.join(build.archs)} and none that {_list(driver.devices)} can run: "
            f"build one that has it, {_build_for(build, driver.devices)}."
        )
    for shard in fitting:
        try:
            ctypes.CDLL(str(LIB / shard.file))
        except OSError as error:
            remedy = "install the wheel again; report it if that does not help"
            return f"{shard.file} cannot be loaded ({why(error)}): {remedy}."
    said = "; ".join(line for line in messages if "cuda" in line.lower()) or "ggml gave no reason"
    return f"The CUDA backend does not start ({said}): check that nvidia-smi lists the GPU without an error."


def _left_out(build: _Build, name: str | None, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The devices that the shard in use has no code for: it does not show them to ggml (shown_devices.cpp)."""
    used = [shard for shard in build.shards if shard.name == name]
    return tuple(device for device in devices if used and not used[0].runs_on(device))


def _list(devices: Sequence[Device]) -> str:
    return ", ".join(f"{device.name} (compute capability {device.capability})" for device in devices)


def _build_for(build: _Build, devices: Sequence[Device]) -> str:
    """The command that builds one shard for all these devices, or for as many as one CUDA release compiles for."""
    capabilities = [device.capability for device in devices]
    command, left_out = _gpu_coverage.build_command(capabilities, build.build_command, build.cuda)
    return f"`{command}`" + (" (no CUDA release compiles for all of them)" if left_out else "")


def _major(cuda: str | None) -> int:
    """Within a major version, an older driver runs the code of a newer toolkit."""
    return int((cuda or "0").split(".")[0])


def _gpu_is_there(driver: _Driver) -> bool:
    """Whether the driver lists a GPU, or at least its kernel half does: the halves differ right after an update."""
    kernel_list = Path("/proc/driver/nvidia/gpus")
    return bool(driver.devices) or (driver.failed and kernel_list.is_dir() and any(kernel_list.iterdir()))


def _load() -> tuple[CudaStatus, Messages]:
    driver = _Driver()
    libraries: tuple[Library, ...] = ()
    try:
        build = _read_build(PACKAGE / "_cuda_build.json")
        driver = _ask_driver()
        if driver.devices:  # cuBLAS is 400 MB: not loaded without a use
            search_installed_toolkit()
            libraries = tuple(load_library(soname) for soname in build.libraries)
    finally:
        backends, messages = _load_backends()  # without them not even the CPU computes
    cpu, cuda = backends.get("CPU"), backends.get("CUDA")
    loaded = cuda is not None and cuda.devices > 0
    shard = cuda.variant if cuda and loaded else None
    left_out = _left_out(build, shard, driver.devices)
    note = None
    if left_out:
        note = f"{shard} has no code for {_list(left_out)}. To use all GPUs: {_build_for(build, driver.devices)}."
    status = CudaStatus(
        loaded=loaded,
        shard=shard,
        devices=driver.devices,
        libraries=libraries,
        driver_cuda=driver.cuda,
        covered_archs=build.archs,
        reason=None if loaded else _why_not(build, driver, libraries, messages),
        cpu_variant=cpu.variant if cpu else None,
        left_out=left_out,
        note=note,
    )
    to_log = [(logging.DEBUG, message) for message in messages]
    if note:
        to_log.append((logging.WARNING, f"llama-cpp-python does not use every GPU of this machine: {note}"))
    if not loaded and _gpu_is_there(driver):
        unused = "llama-cpp-python computes on the CPU although this machine has an NVIDIA GPU."
        to_log.append((logging.WARNING, f"{unused} {status.reason}"))
    return status, to_log


def load_safely() -> tuple[CudaStatus, Messages]:
    """Load the backends; what to log comes with the result. No failure may keep anybody from using ``llama_cpp``."""
    try:
        return _load()
    except Exception as error:  # noqa: BLE001  # see above; the reason is kept
        reason = f"The CUDA loader failed ({type(error).__name__}: {error}): install the wheel again, or report it."
        return CudaStatus(loaded=False, reason=reason), [(logging.WARNING, reason)]


def log_safely(messages: Messages) -> None:
    """Log what ``load_safely`` returned. A handler may fail."""
    with contextlib.suppress(Exception):
        for level, message in messages:
            _log.log(level, "%s", message)
