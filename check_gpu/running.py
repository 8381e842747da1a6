"""Examines a program that runs: what Linux and NVML show of it from outside. It is neither stopped nor changed.

``running_diagnosis`` decides what that means.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Iterator

from check_gpu import gguf, process, surroundings
from check_gpu.facts import GpuMemory, MappedModel, Running

PROC = Path("/proc")
FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The namespace of the machine itself. NVML names processes by the numbers that they have there."""

TIMEOUT = 60.0
_LLAMA = re.compile(r"(lib)?(ggml|llama|llava|mtmd)")
_CUDA = re.compile(r"lib(cuda|cudart|cublas|cublasLt|nvidia-ptxjitcompiler)\b|libcudart-|libcublas(Lt)?-")
_OTHERS = re.compile(r"lib(torch_cuda|tensorflow|xla|onnxruntime_providers_cuda|ctranslate2|cudnn)")
"""Libraries that hold memory on a GPU for something else than llama.cpp."""
_LIBRARY = re.compile(r"\.so(\.\d+)*$")
_DEVICE = re.compile(r"/dev/(nvidia|dxg)")
_DELETED = " (deleted)"
_ENDED = frozenset("ZXx")


def problem(pid: int, system: str = sys.platform) -> str | None:
    """Say why there is nothing to examine; ``None`` if there is."""
    if system != "linux":
        return f"--pid reads /proc, which only Linux has; this is {system}"
    if pid <= 0 or not (PROC / str(pid)).is_dir():
        return f"--pid: there is no process {pid}, or this user may not see it"
    return None


def examine(pid: int, folder: Path) -> Running:
    """Examine a process. What cannot be seen is said in ``unseen``; a process that ends is a result too."""
    seen = _Process(pid)
    found = seen.look()
    memory, why = _memory(pid, folder)
    found = replace(found, memory=memory, unseen=(*found.unseen, *([why] if why else [])))
    return replace(found, ended=True) if seen.has_ended() else found


class _Process:
    """The files of a process below /proc."""

    def __init__(self, pid: int) -> None:
        self._pid, self._folder = pid, PROC / str(pid)
        self._unseen: list[str] = []
        self._started = self._state()[1]

    def look(self) -> Running:
        maps = self._maps()
        files = {path for path, _, _ in maps or ()}
        return Running(
            pid=self._pid,
            program=self._program(),
            executable=_shown(self._link("exe") or ""),
            seen=maps is not None,
            libraries=tuple(_shown(path) for path in sorted(files) if _is_library(path)),
            devices=tuple(self._devices(files)),
            models=tuple(self._models(maps or [])),
            resident=self._resident(),
            variables=self._variables(),
            shares_files=self._link("ns/mnt") == _own("ns/mnt"),
            unseen=tuple(self._unseen),
        )

    def has_ended(self) -> bool:
        """Whether it has ended since the first look, even if its number was given to another process."""
        state, started = self._state()
        return state in _ENDED or started != self._started

    def _state(self) -> tuple[str, str]:
        """Return its state and the time of its start; ``X`` if it is gone."""
        # The name of the program, in parentheses, may contain both of them.
        fields = (self._text("stat") or "").rpartition(")")[2].split()
        return (fields[0], fields[19]) if len(fields) > 19 else ("X", "")  # noqa: PLR2004  # proc(5) counts from 3

    def _program(self) -> str:
        words = (self._text("cmdline") or "").split("\0")
        return _shown(" ".join(filter(None, words)) or (self._text("comm") or "").strip())

    def _maps(self) -> list[tuple[str, int, int]] | None:
        """Return each mapped file with the part of it that is mapped; ``None`` if that cannot be seen."""
        text = self._text("maps", what="its libraries")
        if text is None:
            return None
        found = []
        for line in text.splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5].startswith("/"):  # noqa: PLR2004  # proc(5)
                first, last = (int(part, 16) for part in fields[0].split("-"))
                offset = int(fields[2], 16)
                found.append((fields[5].replace("\\012", "\n"), offset, offset + last - first))
        return found

    def _devices(self, files: set[str]) -> Iterator[str]:
        """Yield the files of the driver that are open or mapped."""
        opened = {path for path in files if _DEVICE.match(path)}
        try:
            for entry in (self._folder / "fd").iterdir():
                try:
                    path = os.readlink(entry)  # a Path would resolve what is no path, such as sockets
                except OSError:  # it was closed meanwhile
                    continue
                opened.update([path] if _DEVICE.match(path) else [])
        except OSError as error:
            self._cannot("its open files", error)
        yield from sorted(opened)

    def _models(self, maps: list[tuple[str, int, int]]) -> Iterator[MappedModel]:
        """Yield each GGUF file of which a part is mapped."""
        ranges: dict[str, list[tuple[int, int]]] = {}
        for path, first, last in maps:
            if not _is_library(path) and not path.startswith("/dev/"):
                ranges.setdefault(path, []).append((first, last))
        for path, parts in ranges.items():
            named = path.endswith((".gguf", f".gguf{_DELETED}"))
            try:
                with self._inside(path).open("rb") as file:
                    if file.read(len(gguf.MAGIC)) != gguf.MAGIC:
                        continue
                    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                        yield _model(path, data, _joined(parts, len(data)))
            except (OSError, ValueError, gguf.UnreadableError) as error:
                if named:
                    yield MappedModel(_shown(path), problem=str(error))

    def _resident(self) -> int | None:
        match = re.search(r"^VmRSS:\s*(\d+) kB", self._text("status") or "", re.MULTILINE)
        return int(match[1]) << 10 if match else None

    def _variables(self) -> dict[str, str]:
        """Return the variables with which it was started."""
        entries = (self._text("environ", what="its environment") or "").split("\0")
        pairs = (entry.partition("=") for entry in entries)
        return {name: value for name, _, value in pairs if name in surroundings.VARIABLES}

    def _inside(self, path: str) -> Path:
        """Return a file of the process for this one, which may have other files under the same names."""
        return self._folder / "root" / path.lstrip("/")

    def _link(self, name: str) -> str | None:
        try:
            return os.readlink(self._folder / name)  # namespaces are links to what is no path
        except OSError:
            return None

    def _text(self, name: str, *, what: str | None = None) -> str | None:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            if what is not None:
                self._cannot(what, error)
            return None

    def _cannot(self, what: str, error: OSError) -> None:
        self._unseen.append(f"{what} ({error.strerror})")


def _shown(text: str) -> str:
    """Return text that can be printed; a path of Linux may be any bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_library(path: str) -> bool:
    name = os.path.basename(path).replace(_DELETED, "")  # noqa: PTH119  # the path of another process
    return _LIBRARY.search(name) is not None and any(kind.match(name) for kind in (_LLAMA, _CUDA, _OTHERS))


def _model(path: str, data: mmap.mmap, mapped: list[tuple[int, int]]) -> MappedModel:
    layers = gguf.layers(data)
    return MappedModel(
        _shown(path),
        size=len(data),
        mapped=sum(last - first for first, last in mapped),
        layers=tuple(layer.number for layer in layers),
        in_memory=tuple(layer.number for layer in layers if layer.is_in(mapped)),
    )


def _joined(parts: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Join parts of a file that touch one another."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(parts):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], min(last, size)))
        else:
            joined.append((first, min(last, size)))
    return joined


def _own(name: str) -> str | None:
    try:
        return os.readlink(PROC / "self" / name)  # see above
    except OSError:
        return None


def _memory(pid: int, folder: Path) -> tuple[tuple[GpuMemory, ...] | None, str | None]:
    """Ask NVML for the memory of the process on each GPU; ``None`` and the reason if that cannot be seen."""
    what = "its memory on the GPU"
    if _own("ns/pid") != FIRST_PID_NAMESPACE:
        return None, f"{what} (NVML numbers processes as the host does, and this is another PID namespace)"
    ended = process.run(sys.executable, "usage", (), folder, timeout=TIMEOUT)
    answer = ended.merged
    gpus = answer.get("gpus")
    if gpus is None:
        return None, f"{what} ({answer.get('problem') or ended.how or 'NVML did not answer'})"
    silent = [f"{gpu['name']}: {gpu['problem']}" for gpu in gpus if "problem" in gpu]
    held = tuple(
        GpuMemory(gpu["index"], gpu["name"], each["memory"])
        for gpu in gpus
        for each in gpu.get("processes", ())
        if each["pid"] == pid
    )
    if silent and not held:
        return None, f"{what} ({', '.join(silent)})"
    return held, f"{what} on {', '.join(silent)}" if silent else None
