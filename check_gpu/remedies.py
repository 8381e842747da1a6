"""The command that fixes each cause, for the system on which the user types it."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Iterable

from check_gpu import coverage, import_errors, shell
from check_gpu.facts import Installation

if TYPE_CHECKING:
    from check_gpu.facts import Facts, Machine

DRIVERS = "https://www.nvidia.com/drivers"

_DRIVER_COMMANDS = {
    "ubuntu": "sudo ubuntu-drivers install",
    "debian": "sudo apt install nvidia-driver firmware-misc-nonfree",
    "fedora": "sudo dnf install akmod-nvidia",
    "arch": "sudo pacman -S nvidia",
}
"""By the ``ID`` of ``/etc/os-release``. For every other system: NVIDIA's page."""

# The names of NVIDIA's wheels; before CUDA 13 with the major version as a suffix.
_WHEELS = {
    "cudart": "nvidia-cuda-runtime",
    "cublas": "nvidia-cublas",
    "cublasLt": "nvidia-cublas",
    "nccl": "nvidia-nccl",
}
_FIRST_WITHOUT_SUFFIX = 13
_FIRST_WITH_GGML_CUDA = (0, 2, 80)

_MAJOR = re.compile(r"\.so\.(\d+)|64_(\d{2})\d*\.dll")

NAME = "llama-cpp-python"
_AGAIN = ("--force-reinstall", "--no-cache-dir")
_FROM_SOURCE = (*_AGAIN, "--no-binary", NAME, NAME)
_CUDA = "-DGGML_CUDA=on"
_FROM_WHEELHOUSE = ("--force-reinstall", "--find-links", "wheelhouse", "--only-binary", NAME)

CHECKOUT = "in a checkout of llama-cuda-wheels"
BUILD_ANY = f"nox -s build_cuda_wheel  # {CHECKOUT}, on the machine with the GPU"
_HIP = "-DGGML_HIP=on -DAMDGPU_TARGETS=gfxNNNN"
BUILD_FOR_AMD = (
    f"{shell.install(_FROM_SOURCE, cmake_args=_HIP, system='linux')}  "
    "# rocminfo names the GPU; this project builds for NVIDIA's only"
)

_OTHER_GPUS = {
    "libamdhip64": "AMD's ROCm",
    "libhipblas": "AMD's ROCm",
    "librocblas": "AMD's ROCm",
    "libvulkan": "Vulkan",
    "libze_loader": "Intel's SYCL",
    "libsycl": "Intel's SYCL",
    "libmusa": "Moore Threads' MUSA",
    "libOpenCL": "OpenCL",
}
"""The libraries that builds for other GPUs need."""


def install_driver(machine: Machine, *, oldest: str | None = None, newer: bool = False) -> str:
    """Install or update the driver; ``oldest`` is the required version, like ``580``, ``newer``: any later one."""
    wanted = f" {oldest} or later" if oldest else " (a newer version)" if newer else ""
    if machine.wsl_driver and not wanted:  # it is there, but the loader does not search its folder
        return "echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig"
    if machine.wsl:
        return f"install the NVIDIA driver{wanted} in Windows, not in WSL ({DRIVERS}), then run: wsl --shutdown"
    if machine.container is not None:
        return f"install the NVIDIA driver{wanted} on the host of the container ({DRIVERS}), not in the container"
    command = _DRIVER_COMMANDS.get(machine.distribution)
    if command is None or machine.system != "linux":
        return f"install the NVIDIA driver{wanted}: {DRIVERS}"
    return f"{command}  # driver{wanted}, then restart the machine" if wanted else f"{command}  # then restart"


def start_container() -> str:
    """Start a container with the driver and the GPUs of its host."""
    return "docker run --gpus all IMAGE  # or: podman run --device nvidia.com/gpu=all IMAGE"


def unset_variable(machine: Machine, variable: str) -> str:
    """Remove a variable from the environment."""
    return f"set {variable}=" if machine.system == "win32" else f"unset {variable}"


def install_cuda_build(facts: Facts) -> str:
    """Install a build with CUDA code for the GPUs of the machine."""
    devices = facts.driver.devices if facts.driver else ()
    own = facts.installation.own if facts.installation else None
    if facts.machine.system != "linux" and own is None:
        install = _install(facts, *_FROM_SOURCE)
        return f"set CMAKE_ARGS=-DGGML_CUDA=on, then: {install}  # needs the CUDA toolkit and a C++ compiler"
    command = "nox -s build_cuda_wheel"
    if devices:
        own_build = (own.build_command, own.cuda) if own else ()
        able, reason = _buildable(
            [device.capability for device in devices], _install(facts, *_FROM_SOURCE, cmake_args=_CUDA)
        )
        if not able:
            return reason
        command, _ = coverage.build_command(able, *own_build)
    then = " && " if facts.machine.system == "linux" else ", then: "  # older PowerShells have no &&
    return f"{command}{then}{_install(facts, *_FROM_WHEELHOUSE, NAME)}  # {CHECKOUT}"


def build_for(capabilities: Iterable[str]) -> str:
    """Build a wheel for GPUs of these compute capabilities, wherever they are; if none is known, where they are."""
    wanted = sorted(set(capabilities))
    if not wanted:
        return BUILD_ANY
    able, reason = _buildable(wanted, shell.install(_FROM_SOURCE, cmake_args=_CUDA, system="linux"))
    if not able:
        return reason
    command, left_out = coverage.build_command(able)
    notes = [CHECKOUT]
    if "--cuda" in command:
        notes.append("that CUDA toolkit has to be installed")
    if len(able) > 1:
        notes.append("on the machine of these GPUs, --arch native does the same")
    notes += [f"no toolkit compiles for {number // 10}.{number % 10} as well" for number in left_out]
    return f"{command}  # {'; '.join(notes)}"


def _buildable(capabilities: Iterable[str], install: str) -> tuple[list[str], str]:
    """Return the GPUs for which a wheel of this project can be built; if there is none, also what to do instead.

    ``install`` compiles it on the machine with these GPUs.
    """
    numbers = {capability: int(capability.replace(".", "")) for capability in capabilities}
    here = [capability for capability, number in numbers.items() if number not in coverage.OTHER_PROCESSORS]
    known = {number for series in coverage.COMPILES_FOR.values() for number in series}
    able = [capability for capability in here if numbers[capability] in known]
    if here:
        listed = ", ".join(here)
        return able, f"another GPU, or the CPU: no CUDA toolkit compiles llama.cpp for compute capability {listed}"
    return [], f"{install}  # on that machine: this project has no wheel for its processor"


def install_any_driver(*, update: bool = False) -> str:
    """Install or update the driver of a machine of which nothing is known."""
    oldest = ", ".join(f"CUDA {cuda} needs {driver}" for cuda, driver in sorted(coverage.OLDEST_DRIVER.items()))
    if update:
        return f"update the NVIDIA driver of the machine that wrote the log: {DRIVERS}  # {oldest} or later"
    return f"install the NVIDIA driver on the machine that wrote the log: {DRIVERS}"


def install_cpu_build(facts: Facts) -> str:
    """Install a build that needs neither a GPU nor a driver."""
    return f"{_install(facts, *_AGAIN, NAME)}  # a CPU build"


def reinstall(facts: Facts, *, portable: bool = False) -> str:
    """Install the same version again, from an index that has it. ``portable``: compiled for any CPU.

    The package index has plain versions only: a local one, such as ``+cu121``, comes from another place.
    """
    found = facts.installation
    version, name = (found.version, found.distribution) if found else (None, None)
    public = version.partition("+")[0] if version else None
    if found is not None and version is not None and not portable and (found.own or version != public):
        if found.own is not None:
            return f"{_install(facts, *_FROM_WHEELHOUSE, f'{NAME}=={version}')}  # {CHECKOUT}"
        install = _install(facts, *_AGAIN, "--find-links", "PAGE", f"{name or NAME}=={version}")
        return f"{install}  # PAGE: where its publisher has it"
    options = ["-DGGML_NATIVE=off"] if portable else []
    options += [_cuda_option(public)] if found is not None and found.cuda else []
    return _install(facts, *_AGAIN, f"{NAME}=={public}" if public else NAME, cmake_args=" ".join(options))


def _cuda_option(version: str | None) -> str:
    """The option of CMake for CUDA, which has another name in older releases."""
    numbers = tuple(map(int, re.findall(r"\d+", version or "")[:3]))
    return "-DLLAMA_CUBLAS=on" if numbers and numbers < _FIRST_WITH_GGML_CUDA else _CUDA


def repair_import(facts: Facts, error: str) -> str:
    """Make ``import llama_cpp`` work again; its ``error`` decides how."""
    for sign, gpus in _OTHER_GPUS.items():
        if sign in error:
            install = install_cuda_build if facts.driver and facts.driver.devices else install_cpu_build
            return f"this build is for {gpus}: {install(facts)}"
    return import_errors.fix(error, _install(facts)) or reinstall(facts)


def install_libraries(facts: Facts, missing: Iterable[str]) -> str:
    """Install CUDA's libraries from NVIDIA's wheels, and let a loader find them that does not search there."""
    installation = facts.installation
    missing = [*missing]
    major = next((match[1] or match[2] for name in missing if (match := _MAJOR.search(name))), None)
    if major is None and installation is not None:
        major = (installation.cuda_version or "13").split(".")[0]
    suffix = "" if int(major or 13) >= _FIRST_WITHOUT_SUFFIX else f"-cu{major}"
    # Always both: the loader names only the first missing library, and the second would be missing next.
    wheels = dict.fromkeys(["nvidia-cublas", "nvidia-cuda-runtime", *_wheels_of(missing)])
    wanted = [f"{wheel}{suffix}=={major}.*" if wheel != "nvidia-nccl" else f"{wheel}-cu{major}" for wheel in wheels]
    if any(name.endswith(".dll") for name in missing):  # a log of Windows, wherever it is read
        facts = dataclasses.replace(facts, machine=dataclasses.replace(facts.machine, system="win32"))
    if installation is not None and installation.own is not None:
        return _install(facts, *wanted, "cuda-pathfinder")
    site = installation.site if installation is not None and installation.site else "SITE_PACKAGES"
    return f"{_install(facts, *wanted)} && {_let_the_loader_search(site, suffix, facts.machine)}"


def _let_the_loader_search(site: str, suffix: str, machine: Machine) -> str:
    """The folders of NVIDIA's wheels, in the variable that the loader of the system reads."""
    if machine.system == "win32":
        parts = ["cu13\\bin\\x86_64"] if not suffix else ["cublas\\bin", "cuda_runtime\\bin"]
        return f'set "PATH={";".join(f"{site}{chr(92)}nvidia{chr(92)}{part}" for part in parts)};%PATH%"'
    folders = ["cu13/lib"] if not suffix else ["cublas/lib", "cuda_runtime/lib"]
    path = ":".join(f"{site}/nvidia/{folder}" for folder in folders)
    return f"export LD_LIBRARY_PATH={shell.quote([path], system=machine.system)}"


def _wheels_of(missing: Iterable[str]) -> Iterable[str]:
    for name in missing:
        match = re.match(r"(?:lib)?([a-zA-Z]+)", name)
        if match and match[1] in _WHEELS:
            yield _WHEELS[match[1]]


def _install(facts: Facts, *arguments: str, cmake_args: str = "") -> str:
    """The command that installs into the environment that was examined."""
    found = facts.installation or Installation("python")
    return shell.install(
        arguments, python=found.python, installer=found.installer, cmake_args=cmake_args, system=facts.machine.system
    )
