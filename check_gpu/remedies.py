"""The command that fixes each cause, for the system on which the user types it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Iterable

from check_gpu import coverage, import_errors

if TYPE_CHECKING:
    from check_gpu.facts import Facts, Installation, Machine

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

CHECKOUT = "in a checkout of llama-cuda-wheels"
BUILD_ANY = f"nox -s build_cuda_wheel  # {CHECKOUT}, on the machine with the GPU"
BUILD_FOR_AMD = (
    "CMAKE_ARGS='-DGGML_HIP=on -DAMDGPU_TARGETS=gfxNNNN' python -m pip install --force-reinstall --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python  # rocminfo names the GPU; this project builds for NVIDIA's only"
)


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
    python = _python(facts.installation)
    devices = facts.driver.devices if facts.driver else ()
    if facts.machine.system != "linux":
        return (
            f"set CMAKE_ARGS=-DGGML_CUDA=on, then: {python} -m pip install --force-reinstall --no-cache-dir "
            "--no-binary llama-cpp-python llama-cpp-python  # needs the CUDA toolkit and a C++ compiler"
        )
    own = facts.installation.own if facts.installation else None
    command = "nox -s build_cuda_wheel"
    if devices:
        own_build = (own.build_command, own.cuda) if own else ()
        able, reason = _buildable([device.capability for device in devices], python)
        if not able:
            return reason
        command, _ = coverage.build_command(able, *own_build)
    install = "-m pip install --force-reinstall --find-links wheelhouse --only-binary llama-cpp-python llama-cpp-python"
    return f"{command} && {python} {install}  # in a checkout of llama-cuda-wheels"


def build_for(capabilities: Iterable[str]) -> str:
    """Build a wheel for GPUs of these compute capabilities, wherever they are; if none is known, where they are."""
    wanted = sorted(set(capabilities))
    if not wanted:
        return BUILD_ANY
    able, reason = _buildable(wanted, "python")
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


def _buildable(capabilities: Iterable[str], python: str) -> tuple[list[str], str]:
    """Return the GPUs for which a wheel of this project can be built; if there is none, also what to do instead."""
    numbers = {capability: int(capability.replace(".", "")) for capability in capabilities}
    here = [capability for capability, number in numbers.items() if number not in coverage.OTHER_PROCESSORS]
    known = {number for series in coverage.COMPILES_FOR.values() for number in series}
    able = [capability for capability in here if numbers[capability] in known]
    if here:
        listed = ", ".join(here)
        return able, f"another GPU, or the CPU: no CUDA toolkit compiles llama.cpp for compute capability {listed}"
    return [], (
        f"CMAKE_ARGS=-DGGML_CUDA=on {python} -m pip install --force-reinstall --no-cache-dir --no-binary "
        "llama-cpp-python llama-cpp-python  # on that machine: this project has no wheel for its processor"
    )


def install_any_driver(*, update: bool = False) -> str:
    """Install or update the driver of a machine of which nothing is known."""
    oldest = ", ".join(f"CUDA {cuda} needs {driver}" for cuda, driver in sorted(coverage.OLDEST_DRIVER.items()))
    if update:
        return f"update the NVIDIA driver of the machine that wrote the log: {DRIVERS}  # {oldest} or later"
    return f"install the NVIDIA driver on the machine that wrote the log: {DRIVERS}"


def reinstall(installation: Installation, *, portable: bool = False) -> str:
    """Install the same version again. ``portable``: compiled for any CPU."""
    name = installation.distribution or "llama-cpp-python"
    wanted = f"{name}=={installation.version}" if installation.version else name
    options = "CMAKE_ARGS=-DGGML_NATIVE=off " if portable else ""
    return f"{options}{_python(installation)} -m pip install --force-reinstall --no-cache-dir '{wanted}'"


def repair_import(installation: Installation, error: str) -> str:
    """Make ``import llama_cpp`` work again; its ``error`` decides how."""
    fix = import_errors.fix(error, installation.python)
    if fix is not None:
        return fix
    return reinstall(installation)


def install_libraries(facts: Facts, missing: Iterable[str]) -> str:
    """Install CUDA's libraries from NVIDIA's wheels, and let a loader find them that does not search there."""
    installation = facts.installation
    major = next((match[1] for name in missing if (match := re.search(r"\.so\.(\d+)", name))), None)
    if major is None and installation is not None:
        major = (installation.cuda_version or "13").split(".")[0]
    suffix = "" if int(major or 13) >= _FIRST_WITHOUT_SUFFIX else f"-cu{major}"
    # Always both: the loader names only the first missing library, and the second would be missing next.
    wheels = dict.fromkeys(["nvidia-cublas", "nvidia-cuda-runtime", *_wheels_of(missing)])
    wanted = [f"'{wheel}{suffix}=={major}.*'" if wheel != "nvidia-nccl" else f"{wheel}-cu{major}" for wheel in wheels]
    install = f"{_python(installation)} -m pip install {' '.join(wanted)}"
    if installation is not None and installation.own is not None:
        return f"{install} cuda-pathfinder"
    site = installation.site if installation is not None and installation.site else "SITE_PACKAGES"
    folders = ["cu13/lib"] if not suffix else ["cublas/lib", "cuda_runtime/lib"]
    path = ":".join(f"{site}/nvidia/{folder}" for folder in folders)
    return f"{install} && export LD_LIBRARY_PATH={path}"


def _wheels_of(missing: Iterable[str]) -> Iterable[str]:
    for name in missing:
        match = re.match(r"lib(\w+)\.so", name)
        if match and match[1] in _WHEELS:
            yield _WHEELS[match[1]]


def _python(installation: Installation | None) -> str:
    return installation.python if installation else "python"
