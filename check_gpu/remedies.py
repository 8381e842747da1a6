"""The command that fixes each cause, for the system on which the user types it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable

from check_gpu import coverage, shell

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
_MAJOR = re.compile(r"\.so\.(\d+)|64_(\d{2})\d*\.dll")

_IMPORT_ERRORS: tuple[tuple[str, str], ...] = (
    ("GLIBC_", "this build is for a newer system: install one made on this system or on an older one"),
    ("libgomp.so", "sudo apt install libgomp1  # Fedora: sudo dnf install libgomp"),
    ("libc.musl", "this build is for Alpine's C library: install one for glibc, which pip chooses by itself"),
    ("GLIBCXX", "this build needs a newer libstdc++: inside conda, conda install -c conda-forge libstdcxx-ng"),
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


def install_driver(machine: Machine, *, oldest: str | None = None) -> str:
    """Install or update the driver; ``oldest`` is the required version, like ``580``."""
    wanted = f" {oldest} or later" if oldest else ""
    if machine.wsl_driver and oldest is None:  # it is there, but the loader does not search its folder
        return "echo /usr/lib/wsl/lib | sudo tee /etc/ld.so.conf.d/ld.wsl.conf && sudo ldconfig"
    if machine.wsl:
        return f"install the NVIDIA driver{wanted} in Windows, not in WSL ({DRIVERS}), then run: wsl --shutdown"
    if machine.container is not None:
        return f"install the NVIDIA driver{wanted} on the host of the container ({DRIVERS}), not in the container"
    command = _DRIVER_COMMANDS.get(machine.distribution)
    if command is None or machine.system != "linux":
        return f"install the NVIDIA driver{wanted}: {DRIVERS}"
    return f"{command}  # driver{wanted}, then restart the machine" if oldest else f"{command}  # then restart"


def start_container() -> str:
    """Start a container with the driver and the GPUs of its host."""
    return "docker run --gpus all IMAGE  # or: podman run --device nvidia.com/gpu=all IMAGE"


def unset_variable(machine: Machine, variable: str) -> str:
    """Remove a variable from the environment."""
    return f"set {variable}=" if machine.system == "win32" else f"unset {variable}"


def install_cuda_build(facts: Facts) -> str:
    """Install a build with CUDA code for the GPUs of the machine."""
    devices = facts.driver.devices if facts.driver else ()
    if facts.machine.system != "linux":
        options = ("--force-reinstall", "--no-cache-dir", "--no-binary", "llama-cpp-python", "llama-cpp-python")
        install = _install(facts, *options)
        return f"set CMAKE_ARGS=-DGGML_CUDA=on, then: {install}  # needs the CUDA toolkit and a C++ compiler"
    own = facts.installation.own if facts.installation else None
    command = "nox -s build_cuda_wheel"
    if devices:
        own_build = (own.build_command, own.cuda) if own else ()
        command, _ = coverage.build_command([device.capability for device in devices], *own_build)
    options = ("--force-reinstall", "--find-links", "wheelhouse", "--only-binary", "llama-cpp-python")
    install = _install(facts, *options, "llama-cpp-python")
    return f"{command} && {install}  # in a checkout of llama-cuda-wheels"


def install_cpu_build(facts: Facts) -> str:
    """Install a build that needs neither a GPU nor a driver."""
    return f"{_install(facts, '--force-reinstall', '--no-cache-dir', _distribution(facts))}  # a CPU build"


def reinstall(facts: Facts, *, portable: bool = False) -> str:
    """Install the same version again. ``portable``: compiled for any CPU."""
    version = facts.installation.version if facts.installation else None
    wanted = f"{_distribution(facts)}=={version}" if version else _distribution(facts)
    command = _install(facts, "--force-reinstall", "--no-cache-dir", wanted)
    if not portable:
        return command
    return shell.with_variable("CMAKE_ARGS", "-DGGML_NATIVE=off", command, system=facts.machine.system)


def repair_import(facts: Facts, error: str) -> str:
    """Make ``import llama_cpp`` work again; its ``error`` decides how."""
    for sign, gpus in _OTHER_GPUS.items():
        if sign in error:
            install = install_cuda_build if facts.driver and facts.driver.devices else install_cpu_build
            return f"this build is for {gpus}: {install(facts)}"
    for sign, command in _IMPORT_ERRORS:
        if sign in error:
            return command
    module = re.search(r"No module named '?([\w-]+)", error)
    return f"install what is missing: {_install(facts, module[1])}" if module else reinstall(facts)


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


def _install(facts: Facts, *arguments: str) -> str:
    """The command that installs into the environment that was examined."""
    found = facts.installation
    if found is None:
        return shell.install(arguments, system=facts.machine.system)
    return shell.install(arguments, python=found.python, installer=found.installer, system=facts.machine.system)


def _distribution(facts: Facts) -> str:
    return (facts.installation.distribution if facts.installation else None) or "llama-cpp-python"
