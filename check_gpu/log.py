"""Reads the signs that decide a diagnosis from a log, one load of a model after the other.

The live check and ``--log`` use this one reading; ``grammar`` knows the wording of the lines.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Iterable

from check_gpu import gpu_error_lines, grammar, import_errors
from check_gpu.placement import Collector, Placements, on_gpu

_FLAGS = {"out_of_memory", "illegal_instruction", "no_kernel"}
_TEXTS = {"crash", "load_error", "gpu_lost", "gpu_failed"}
_AMD = re.compile(r"\b(?:ROCm|HIP|rocBLAS|hipBLAS|hipError\w*)\b")

A_CPU = "which is a CPU"
"""Added to the name of a device of a GPU's backend of which the log says so."""

EARLIER = 20
"""Number of earlier loads that are kept: a server writes thousands of them into one log."""


@dataclass(frozen=True)
class FoundDevice:
    """A device that the CUDA backend listed. ``capability`` is like ``8.9``."""

    name: str
    capability: str


@dataclass(frozen=True)
class Signs:
    """One load in a log; each field is ``None``, ``False`` or empty if the log does not mention it.

    ``in_use`` pairs ggml's name and the GPU's name of each device of the model, ``found`` lists the devices that the
    backend found at its start, ``cuda_built_in``: whether the features in the log name CUDA, ``no_gpu_code``: it says
    that the build has none for any GPU, ``rocm``: it is of a build for GPUs of AMD. ``init_error`` is why CUDA did not
    start, ``cuda_error`` its later failure, ``driver_error`` the name in ``gpu_error_lines.ERRORS`` of a driver that is
    too old in a special way. ``code_for`` is the architecture for which a kernel had no code, like ``520``.
    ``load_error`` is why llama.cpp gave up, ``crash`` how the process ended, ``gpu_lost`` and ``gpu_failed`` how a GPU
    of NVIDIA or another one did. ``image_encoder`` is the device of the part for images and sound. ``wheel_reason`` is
    the warning of a wheel of this project. ``doubtful``: a line speaks against a bare plan. ``quoted``: it follows the
    words of a person, who may show another log. ``model`` is the file, ``earlier`` are the other loads.
    """

    placements: Placements = Placements()  # noqa: RUF009  # frozen
    in_use: tuple[tuple[str, str], ...] = ()
    found: tuple[FoundDevice, ...] = ()
    cuda_built_in: bool | None = None
    init_error: str | None = None
    cuda_error: str | None = None
    missing_library: str | None = None
    import_error: str | None = None
    wheel_reason: str | None = None
    load_error: str | None = None
    crash: str | None = None
    gpu_lost: str | None = None
    gpu_failed: str | None = None
    image_encoder: str | None = None
    code_for: str | None = None
    driver_error: str | None = None
    out_of_memory: bool = False
    no_kernel: bool = False
    no_device: bool = False
    no_gpu_code: bool = False
    rocm: bool = False
    driver_too_old: bool = False
    illegal_instruction: bool = False
    doubtful: bool = False
    quoted: bool = False
    model: str | None = None
    earlier: tuple[Signs, ...] = ()

    @property
    def device_names(self) -> tuple[str, ...]:
        """The names of the GPUs, in use or only listed."""
        return tuple(dict.fromkeys([*(name for _, name in self.in_use), *(device.name for device in self.found)]))


@dataclass
class _Process:
    """The facts that a process prints before its first load; they are true for all of its loads."""

    found: list[FoundDevice] = field(default_factory=list)
    named: dict[str, str] = field(default_factory=dict)
    said: dict[str, str | bool] = field(default_factory=dict)
    backends: set[str] = field(default_factory=set)


class Reader:
    """Reads line by line, so that a log of any length needs little memory."""

    def __init__(self) -> None:
        self._process = _Process()
        self._earlier: deque[Signs] = deque(maxlen=EARLIER)
        self._person_speaks = False
        self._others: list[tuple[str, str]] = []  # failed imports of other packages
        self._begin()

    def _begin(self) -> None:
        self._places = Collector()
        self._in_use: dict[str, str] = {}
        self._said: dict[str, str | bool] = {}
        self._model: str | None = None
        self._context = False  # whether the memory of a context was logged, which comes after the weights
        self._image_encoder: str | None = None
        self._quoted = False
        self._stopped = False  # whether someone asked the process to end

    def _next_load(self) -> None:
        self._earlier.append(self._signs())
        self._begin()

    def feed(self, line: str) -> None:
        """Read the next line."""
        for kind, found in grammar.match(line):
            if self._starts_another(kind, found):
                self._next_load()
            if kind in {"cache", "gpu_cache", "state"} or found.groupdict().get("purpose", "model") != "model":
                self._context = True
                self._recover(found)
            if self._places.add(kind, found):
                self._stopped = False  # a process that goes on
                self._quoted = self._quoted or self._person_speaks
            else:
                self._add(kind, found, line)

    def signs(self) -> Signs:
        """Return the last load, with those before it."""
        earlier = [*self._earlier]
        if self._silent() and not earlier:
            for kind, said in self._others:  # as no model was loaded, they may be the reason
                self._import_error(kind, said)
        last = self._signs()
        if self._silent() and earlier:
            # Nothing came after it but the part for images of the same model.
            before = earlier.pop()
            last = replace(before, image_encoder=last.image_encoder or before.image_encoder)
        return replace(last, earlier=tuple(earlier))

    def _silent(self) -> bool:
        started = not {"init_error", "no_device"} & self._process.said.keys()
        return self._places.empty and self._model is None and not self._said and not self._in_use and started

    def _starts_another(self, kind: str, found: re.Match[str]) -> bool:
        """Whether a line belongs to another load than those before it."""
        places, parts = self._places, found.groupdict()
        failed = bool(self._said)
        placed = places.offloaded is not None or places.first_layers is not None
        weights = parts.get("purpose", "model") == "model"
        of_kind = {
            "import_error": not places.empty and not _is_optional(parts.get("said")),
            # Before the line of the file until 0.3.16, after it in 0.3.36.
            "in_use": not places.empty or failed or parts.get("device") in self._in_use,
            "weights": placed or bool(places.buffers) or self._context or failed,
            "offloaded": placed or failed,
            "first_layers": placed or failed,
            "host_memory": ("CPU", "host") in places.buffers,
            "buffer": weights and self._context,
        }
        starts_process_or_file = kind in {"model", "devices", "no_device", "init_failed"}
        anything = self._model is not None or not places.empty or failed
        return of_kind.get(kind, starts_process_or_file and anything)

    def _recover(self, found: re.Match[str]) -> None:
        """A context that got its memory on a GPU after all, as after a retry with less, has no error."""
        parts = found.groupdict()
        if parts.get("purpose") == "compute" and on_gpu(parts["name"]) and float(parts["size"]) > 0:
            for sign in ("out_of_memory", "load_error"):
                self._said.pop(sign, None)

    def _add(self, kind: str, found: re.Match[str], line: str) -> None:
        if _AMD.search(found[0]):
            self._process.said["rocm"] = True
        parts = found.groupdict()
        said = (parts.get("said") or parts.get("plain") or "").strip()
        if kind in _FLAGS:
            self._said[kind] = True
            if kind == "no_kernel":
                self._said.setdefault("code_for", parts.get("arch") or parts.get("at_most") or "")
        elif kind in _TEXTS:
            self._said.setdefault(kind, said)
        elif kind in {"init_failed", "gpu_error"}:
            self._gpu_error(kind, gpu_error_lines.meaning(found, line), said or line.strip())
        elif kind in {"backend", "import_error"}:
            if import_errors.of_another_package(line):
                self._others.append((kind, said))
            else:
                self._import_error(kind, said)
        elif kind in {"model", "vocabulary", "in_use", "image_encoder"}:
            self._add_model(kind, parts)
        elif kind in {"stopped", "killed", "speaker"}:
            self._add_person(kind, parts)
        else:
            self._add_process(kind, found, line)

    def _add_person(self, kind: str, parts: dict[str, str]) -> None:
        """A process that does not end in time after it was asked to is killed, and that is no failure."""
        if kind == "stopped":
            self._stopped = True
        elif kind == "speaker":
            self._person_speaks = parts["person"] is not None
        elif not self._stopped:
            self._said.setdefault("crash", parts["said"])

    def _add_model(self, kind: str, parts: dict[str, str]) -> None:
        if kind == "model":
            self._model = parts["path"].strip()
        elif kind == "vocabulary":
            self._begin()  # only the words of a model were read
        elif kind == "image_encoder":
            self._image_encoder = parts["device"]
        else:
            self._in_use[parts["device"]] = parts["name"]

    def _add_process(self, kind: str, found: re.Match[str], line: str) -> None:
        process, parts = self._process, found.groupdict()
        if kind == "listed":
            process.found.append(FoundDevice(parts["name"], parts["capability"]))
        elif kind == "named":
            process.named[parts.get("device") or f"Vulkan{parts['number']}"] = parts["name"]
        elif kind == "on_cpu":
            self._add_renderer(parts)
        elif kind == "devices" and int(parts["count"]):
            self._process = _Process(named=process.named, said={"rocm": "ROCm" in found[0]})
        elif kind in {"devices", "no_device", "no_other_device"}:
            process.said["no_other_device" if kind == "no_other_device" else "no_device"] = True
        elif kind in {"blas", "no_gpu_support"}:
            process.said["no_gpu_code"] = parts.get("value") != "1"
        elif kind == "features":
            process.said["cuda_built_in"] = re.search(r"\bCUDA\b|\bBLAS = 1", line) is not None
        elif kind == "backend_loaded":
            process.backends.add(parts["name"] or parts["registered"])
        elif kind in {"doubtful", "wheel_reason"}:
            process.said.setdefault(kind, (parts.get("said") or "").strip() or True)

    def _add_renderer(self, parts: dict[str, str]) -> None:
        named = self._process.named
        if parts.get("number"):
            named[f"SYCL{parts['number']}"] = f"{parts['name']}, {A_CPU}"
        elif parts.get("name"):
            named["OpenCL"] = f"{parts['name']}, {A_CPU}"
        else:
            last = next(reversed([*named]), "Vulkan0")
            named[last] = f"{named.get(last, 'a device')}, {A_CPU}"

    def _gpu_error(self, kind: str, meaning: str, said: str) -> None:
        """An error at the start holds for all loads of the process, a later one for the load that it ended."""
        signs = self._process.said if kind == "init_failed" else self._said
        signs.setdefault("init_error" if kind == "init_failed" else "cuda_error", said)
        if meaning in {"ptx_too_new", "forward_compatibility"}:
            signs.setdefault("driver_error", meaning)
            signs["driver_too_old"] = True
        elif meaning != "gpu_error":
            signs[meaning] = True

    def _import_error(self, kind: str, said: str) -> None:
        """A backend that does not load is missing in all loads of the process; a failed import has no loads."""
        signs = self._process.said if kind == "backend" else self._said
        library = re.search(r"([\w.+-]+\.so[\w.]*): cannot open shared object file", said)
        if library:
            signs.setdefault("missing_library", library[1])
        elif kind == "import_error" and (self._places.empty or not _is_optional(said)):
            signs.setdefault(kind, said)

    def _signs(self) -> Signs:
        said: dict[str, str | bool] = {**self._process.said, **self._said}
        used = {*self._places.weights.values(), *(name for name, _ in self._places.buffers)}
        silent = not self._in_use and not any(map(on_gpu, used))  # about the devices of this load
        if said.pop("no_other_device", False) and silent:
            said["no_device"] = True
        if self._process.backends and not any(map(on_gpu, self._process.backends)):
            said["doubtful"] = True
        names = {device: name for device, name in self._process.named.items() if device in used or silent}
        return Signs(
            placements=self._places.placements(),
            in_use=tuple({**names, **self._in_use}.items()),
            found=tuple(dict.fromkeys(self._process.found)),
            model=self._model,
            image_encoder=self._image_encoder,
            quoted=self._quoted,
            **{name: value or None if name == "code_for" else value for name, value in said.items()},  # type: ignore[arg-type]
        )


def _is_optional(said: str | None) -> bool:
    """Whether an import failed that a program can do without, after llama_cpp was imported."""
    return re.match(r"No module named (?!'?llama_cpp)", said or "") is not None


def read(lines: Iterable[str]) -> Signs:
    """Read the lines of a log: from llama.cpp, from a Python that failed to import it, or from both."""
    reader = Reader()
    for line in lines:
        reader.feed(line)
    return reader.signs()
