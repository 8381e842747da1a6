"""Whether pip would install a wheel on a machine, from the tags in its name; and if not, why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.tags import compatible_tags, cpython_tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from build_config.model import Machine
    from build_config.tasks.recommend.wheels import Candidate

_GLIBC_TAG = re.compile(r"manylinux_(\d+)_(\d+)_(\w+)")
_LEGACY_TAG = re.compile(r"manylinux(?:1|2010|2014)(?=_)")
_LEGACY = {"manylinux1": "2_5", "manylinux2010": "2_12", "manylinux2014": "2_17"}
_FIRST_MINOR = {"x86_64": 5}
"""Of glibc in the first manylinux tag of a processor."""
_FIRST_MINOR_OF_OTHERS = 17


def platforms(machine: Machine) -> list[str]:
    """The platform tags that pip accepts on a machine, best first."""
    system, _, processor = machine.system.partition(" ")
    if system == "Windows":
        return ["win_arm64" if processor.lower() in {"arm64", "aarch64"} else "win_amd64"]
    if system != "Linux":
        return []
    tags = []
    if machine.glibc:
        major, minor = map(int, machine.glibc.split(".")[:2])
        names = {release: legacy for legacy, release in _LEGACY.items()}
        for number in range(minor, _FIRST_MINOR.get(processor, _FIRST_MINOR_OF_OTHERS) - 1, -1):
            tags.append(f"manylinux_{major}_{number}_{processor}")
            if legacy := names.get(f"{major}_{number}"):
                tags.append(f"{legacy}_{processor}")
    return [*tags, f"linux_{processor}"]


def why_not(wheel: Candidate, machine: Machine, python: tuple[int, int]) -> str | None:
    """Why pip would not take it; ``None`` where it would."""
    if wheel.yanked:
        return "it was withdrawn"
    if wheel.requires_python and ".".join(map(str, python)) not in SpecifierSet(wheel.requires_python):
        return f"it needs Python {wheel.requires_python}"
    here = platforms(machine) or ["unknown"]  # of an empty list packaging makes this very machine's
    interpreter = f"cp{python[0]}{python[1]}"
    supported = {str(tag) for tag in cpython_tags(python, platforms=here)}
    supported |= {str(tag) for tag in compatible_tags(python, interpreter, here)}
    if supported.intersection(wheel.tags):
        return None
    systems = sorted({tag.split("-", maxsplit=2)[2] for tag in wheel.tags})
    if "any" not in systems and not set(systems).intersection(here):
        return _why_not_platform(systems, machine)
    pythons = sorted({tag.split("-", maxsplit=1)[0] for tag in wheel.tags})
    return f"it is for {', '.join(pythons)}, this is {interpreter}"


def _why_not_platform(systems: Sequence[str], machine: Machine) -> str:
    processor = machine.system.partition(" ")[2]
    modern = (_LEGACY_TAG.sub(lambda match: f"manylinux_{_LEGACY[match[0]]}", tag) for tag in systems)
    matches = [match for tag in modern if (match := _GLIBC_TAG.fullmatch(tag)) and match[3] == processor]
    if matches and machine.system.startswith("Linux "):
        oldest = ".".join(map(str, min((int(match[1]), int(match[2])) for match in matches)))
        return f"it needs glibc {oldest} or later, here is {machine.glibc or 'another C library'}"
    return f"it is for {', '.join(systems)}, this is {machine.system}"
