"""Machines of users, and wheels that an index may have for them."""

from packaging.tags import compatible_tags, cpython_tags

from build_config.model import Driver, GpuDevice, Machine
from build_config.tasks import recommend

GPUS = {
    "6.1": "NVIDIA GeForce GTX 1080",
    "7.0": "Tesla V100",
    "7.5": "NVIDIA GeForce RTX 2080",
    "8.6": "NVIDIA GeForce RTX 3090",
    "8.9": "NVIDIA GeForce RTX 4090",
    "9.0": "NVIDIA H100",
    "10.0": "NVIDIA B200",
    "12.0": "NVIDIA GeForce RTX 5090",
}


def machine(*capabilities: str, driver: str | None = "580.65.06", **changes: str) -> Machine:
    gpus = tuple(
        GpuDevice(index=number, name=GPUS.get(capability, "another"), capability=capability, memory=24 << 30)
        for number, capability in enumerate(capabilities)
    )
    return Machine(
        system=changes.get("system", "Linux x86_64"),
        cpu="x86-64",
        cores=8,
        glibc=changes.get("glibc", "2.36"),
        driver=Driver(version=driver, cuda="13.0") if driver else None,
        gpus=gpus,
    )


def python_on(here: Machine) -> recommend.Interpreter:
    """Python 3.12 with the tags that pip accepts there."""
    system, _, processor = here.system.partition(" ")
    newest = int(here.glibc.partition(".")[2] or 0)
    linux = [f"manylinux_2_{minor}_{processor}" for minor in range(newest, 16, -1)]
    linux += [f"manylinux2014_{processor}"] if linux else []
    platforms = {"Linux": [*linux, f"linux_{processor}"], "Windows": ["win_amd64"]}.get(system, ["another"])
    tags = {*cpython_tags((3, 12), platforms=platforms), *compatible_tags((3, 12), "cp312", platforms)}
    return recommend.Interpreter(version="3.12", tags=frozenset(map(str, tags)))


def named(name: str, *, address: str = "", requires_python: str = "", yanked: bool = False) -> recommend.Candidate:
    found = recommend.candidate(name, address=address, requires_python=requires_python, yanked=yanked)
    assert found is not None
    return found
