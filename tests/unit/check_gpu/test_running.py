"""The diagnosis of a running program, from facts made by hand, and how its files are read."""

import dataclasses
import mmap
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from build_config.testbed import synthetic_model
from check_gpu import gguf, running
from check_gpu.diagnosis import diagnose
from check_gpu.facts import (
    CudaLibrary,
    Device,
    Driver,
    Facts,
    GpuMemory,
    Installation,
    Machine,
    MappedModel,
    OwnBuild,
    Running,
)
from check_gpu.result import Code
from tests.support import remedy_commands, systems

PACKAGE = "/srv/venv/lib/python3.12/site-packages/llama_cpp"
BASE, LLAMA, BACKEND = (f"{PACKAGE}/lib/lib{name}.so" for name in ("ggml-base", "llama", "ggml-cuda"))
VULKAN, HIP = (f"{PACKAGE}/lib/libggml-{kind}.so" for kind in ("vulkan", "hip"))
CUDA = ("/usr/lib/libcuda.so.580.65.06", "/usr/lib/libcublas.so.12", "/usr/lib/libcudart.so.12")
MODEL = MappedModel("/models/8b.gguf", size=5 << 30, mapped=280 << 20, layers=tuple(range(32)))
IN_USE = Running(
    pid=4711,
    program="/srv/venv/bin/python -m llama_cpp.server",
    executable="/usr/bin/python3.12",
    libraries=(BASE, LLAMA, BACKEND, *CUDA),
    devices=("/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl"),
    models=(MODEL,),
    resident=1 << 30,
    memory=(GpuMemory(0, "RTX 4090", 6 << 30),),
)
STOCK = Installation(python="/srv/venv/bin/python", package=PACKAGE, cuda=(CudaLibrary(BACKEND, code=("89-real",)),))
OWN = OwnBuild("13.0", "580", (), "nox -s build_cuda_wheel -- --arch {arch}")
DRIVER = Driver(
    version="580.65.06", cuda="13.0", devices=(Device(0, "RTX 4090", "8.9", 24 << 30),), cards=("RTX 4090",)
)
NO_DRIVER = Driver(problem="libcuda.so.1: cannot open shared object file")


def facts(installation: Installation | None = STOCK, driver: Driver = DRIVER, **changes: Any) -> Facts:
    machine = {name: changes.pop(name) for name in [*changes] if name in {"wsl", "card_on_bus"}}
    return Facts(
        machine=Machine(system="linux", **{"card_on_bus": True, **machine}),
        installation=installation,
        driver=driver,
        running=dataclasses.replace(IN_USE, **changes),
    )


def model(**changes: Any) -> tuple[MappedModel, ...]:
    return (dataclasses.replace(MODEL, **changes),)


WITHOUT_MODEL: dict[str, Any] = {"models": (), "memory": (GpuMemory(0, "RTX 4090", 6 << 30),)}
IDLE: dict[str, Any] = {"models": (), "memory": (), "devices": ()}
ONE_FILE: dict[str, Any] = {"libraries": CUDA, "executable": "/opt/llama-server", "installation": None}

# The expected code and parts of the sentence; after the arrow a part of the command.
SITUATIONS: dict[str, tuple[Facts, str]] = {
    "a model on the GPU": (facts(), "card-used: 6144 MiB on GPU 0 (RTX 4090) ... 8b.gguf (5120 MiB), 4840 MiB"),
    "on two GPUs": (
        facts(memory=(GpuMemory(0, "A", 3 << 30), GpuMemory(1, "B", 3 << 30))),
        "card-used: 3072 MiB on GPU 0 (A), 3072 MiB on GPU 1 (B)",
    ),
    "one file with CUDA inside": (facts(**ONE_FILE), "card-used: process 4711"),
    "a model that was read, not mapped": (facts(**WITHOUT_MODEL), "card-used: only 1024 MiB are in the memory"),
    # Each piece of evidence is needed.
    "no memory": (facts(memory=()), "unknown: holds no memory on any GPU -> --log"),
    "memory that cannot be seen": (
        facts(memory=None, unseen=("its memory on the GPU (another PID namespace)",)),
        "unknown: not visible: its memory on the GPU (another PID namespace) -> --log",
    ),
    "memory of an unknown size": (
        facts(memory=(GpuMemory(0, "A", None),)),
        "unknown: whose size -> --log",
    ),
    "less memory than the model needs": (facts(memory=(GpuMemory(0, "A", 4 << 30),)), "unknown: 4096 MiB -> --log"),
    "a model that cannot be read": (facts(models=model(problem="damaged")), "unknown: 8b.gguf, which cannot -> --log"),
    "two models, of which one is here": (
        facts(models=(MODEL, *model(file="/models/draft.gguf", mapped=5 << 30, in_memory=tuple(range(32))))),
        "layers-left-on-cpu: 32 of 32 layers of draft.gguf (0-31) -> n_gpu_layers=-1",
    ),
    "some layers here": (
        facts(models=model(mapped=2 << 30, in_memory=(0, 1, 2))),
        "layers-left-on-cpu: 3 of 32 layers of 8b.gguf (0-2) ... still being loaded ... 6144 MiB -> n_gpu_layers=-1",
    ),
    "all layers here": (
        facts(models=model(mapped=5 << 30, in_memory=tuple(range(32))), memory=(GpuMemory(0, "A", 500 << 20),)),
        "no-layers-requested: 32 of 32 layers ... It holds 500 MiB -> n_gpu_layers=-1",
    ),
    "a whole file without layers": (facts(models=model(mapped=5 << 30, layers=())), "unknown -> --log"),
    "not mapped, and less on the GPU than here": (facts(**WITHOUT_MODEL, resident=7 << 30), "unknown -> --log"),
    "not mapped, and nobody knows how much is here": (facts(**WITHOUT_MODEL, resident=None), "unknown -> --log"),
    "not mapped, and no more than CUDA needs": (
        facts(models=(), memory=(GpuMemory(0, "A", 900 << 20),), resident=300 << 20),
        "unknown: maps no model -> --log",
    ),
    "not mapped, and another library holds memory": (
        facts(**WITHOUT_MODEL, libraries=(*IN_USE.libraries, "/x/libtorch_cuda.so")),
        "unknown -> --log",
    ),
    "the CUDA code of llama.cpp is not loaded": (
        facts(libraries=(BASE, LLAMA, *CUDA)),
        "backend-not-loaded: libggml-cuda.so -> check_gpu.pyz --python /srv/venv/bin/python",
    ),
    "a CPU build next to a library with CUDA": (
        facts(dataclasses.replace(STOCK, cuda=()), libraries=(BASE, LLAMA, "/x/libtorch_cuda.so", *CUDA)),
        "cpu-only-build: is a CPU-only build -> /srv/venv/bin/python -m pip install",
    ),
    "Vulkan, and nothing on the GPU": (
        facts(dataclasses.replace(STOCK, cuda=()), libraries=(BASE, LLAMA, VULKAN), **IDLE),
        "cpu-only-build: has no CUDA, only libggml-vulkan.so -> --arch 89",
    ),
    "Vulkan, and something on the GPU": (
        facts(dataclasses.replace(STOCK, cuda=()), libraries=(BASE, LLAMA, VULKAN)),
        "unknown: has no CUDA, but libggml-vulkan.so ... cannot be seen -> --log",
    ),
    "ROCm on a machine without an NVIDIA GPU": (
        facts(None, NO_DRIVER, libraries=(BASE, LLAMA, HIP), card_on_bus=False, **IDLE),
        "unknown: has no CUDA, but libggml-hip.so -> --log",
    ),
    "one file without CUDA": (
        facts(**{**ONE_FILE, **IDLE, "libraries": ()}),
        "cpu-only-build: is a CPU-only build -> --arch 89",
    ),
    "another program that maps a model": (
        facts(None, executable="/usr/bin/python3.12", libraries=(), memory=()),
        "unknown: Whether it uses the GPU is not known -> --log",
    ),
    "a build in a container, seen from its host": (
        facts(None, libraries=(BASE, LLAMA), shares_files=False),
        "cpu-only-build: no library with CUDA code -> nox -s build_cuda_wheel -- --arch 89 && python -m pip install",
    ),
    "a library in a container that may have CUDA inside": (
        facts(None, libraries=(LLAMA, *CUDA), shares_files=False, models=()),
        "unknown: maps no model -> --log",
    ),
    "our wheel before its first model": (
        facts(dataclasses.replace(STOCK, own=OWN), libraries=(BASE, LLAMA), **IDLE),
        "unknown: no device of the NVIDIA driver open, holds no memory -> --log",
    ),
    "hidden": (
        facts(variables={"CUDA_VISIBLE_DEVICES": ""}, **IDLE),
        "card-hidden: started with CUDA_VISIBLE_DEVICES='' -> unset CUDA_VISIBLE_DEVICES, then start it again",
    ),
    "hidden in a container, but open all the same": (
        facts(variables={"NVIDIA_VISIBLE_DEVICES": "void"}),
        "card-used",
    ),
    "no GPU": (facts(driver=NO_DRIVER, card_on_bus=False, **IDLE), "no-card: no NVIDIA GPU"),
    "WSL, which shows no memory of a process": (
        facts(wsl=True, card_on_bus=None, devices=("/dev/dxg",), memory=None, unseen=("its memory on the GPU (x)",)),
        "unknown: has /dev/dxg open -> --log",
    ),
    "another user's": (
        facts(seen=False, libraries=(), models=(), unseen=("its libraries (Permission denied)",)),
        "unknown: cannot see ... Permission denied ... It holds 6144 MiB -> sudo python check_gpu.pyz --pid 4711",
    ),
    "another program": (
        facts(libraries=("/x/libtorch_cuda.so", *CUDA), models=()),
        "unknown: python) has loaded no library of llama.cpp ... something else -> ps --forest",
    ),
    "it ended": (facts(ended=True), "unknown: ended while it was examined -> --log"),
}


@pytest.mark.parametrize(("seen", "expected"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_diagnosis_of_a_running_program(seen: Facts, expected: str) -> None:
    told, _, command = expected.partition(" -> ")
    code, _, sentence = told.partition(": ")
    diagnosis = diagnose(seen)
    assert diagnosis.code is Code(code), diagnosis
    assert all(part in diagnosis.sentence for part in sentence.split(" ... ")), diagnosis
    assert diagnosis.sentence.endswith(".")
    assert (diagnosis.command is None) is (command == "")
    assert command in (diagnosis.command or "")
    assert ("GPU is used" in diagnosis.sentence) is (diagnosis.code is Code.CARD_USED)
    remedy_commands.resolve(diagnosis.command or "")


EVIDENCE: tuple[dict[str, Any], ...] = (
    {"seen": False},
    {"ended": True},
    {"libraries": (BASE, LLAMA, *CUDA)},
    {"memory": None},
    {"memory": ()},
    *({"memory": (GpuMemory(0, "A", size << 20),)} for size in (0, 500, 4800)),
    {"memory": (GpuMemory(0, "A", None),)},
    {"models": model(problem="cut")},
    {"models": model(mapped=5 << 30)},
    *({"models": model(in_memory=(layer,))} for layer in (0, 15, 31)),
)


@pytest.mark.parametrize("installation", [STOCK, None])
@pytest.mark.parametrize("change", EVIDENCE, ids=str)
def test_each_piece_of_evidence_is_needed(change: dict[str, Any], installation: Installation | None) -> None:
    assert diagnose(facts(installation)).code is Code.CARD_USED
    assert not diagnose(facts(installation, **change)).well


# ------------------------------------------------------------------------------------------------------ reading /proc


@pytest.fixture(name="proc")
def _proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /proc with the processes 7 and self."""
    monkeypatch.setattr(running, "PROC", tmp_path)
    for name in ("7/fd", "7/ns", "self/ns", "7/root/models"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("7", "self"):
        (tmp_path / name / "ns" / "mnt").symlink_to("mnt:[4026531832]")
    (tmp_path / "7" / "stat").write_text(f"7 (a) b) S {' '.join(map(str, range(4, 30)))}\n", encoding="utf-8")
    (tmp_path / "7" / "status").write_text("Name:\tx\nVmRSS:\t    2048 kB\n", encoding="utf-8")
    (tmp_path / "7" / "cmdline").write_bytes(b"python\0-c\0\xff\0")
    (tmp_path / "7" / "environ").write_bytes(b"CUDA_VISIBLE_DEVICES=1\0SECRET=x\0LD_PRELOAD=a=b\0")
    return tmp_path


@systems.proc
def test_the_open_devices_and_the_mapped_libraries_are_listed(proc: Path) -> None:
    opened = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/null", "socket:[5]", "/dev/nvidia0", "/home/nvidia0")
    for number, target in enumerate(opened):
        (proc / "7" / "fd" / str(number)).symlink_to(target)
    mapped = [
        "7f0000000000-7f0000001000 r-xp 00000000 fe:00 42    /usr/lib/libcuda.so.580.65.06",
        "7f0000001000-7f0000002000 rw-s 00000000 00:05 43    /dev/nvidia-uvm",
        "7f0000002000-7f0000003000 r-xp 00000000 fe:00 44    /a folder/libggml-cuda.so (deleted)",
        "7f0000003000-7f0000004000 r-xp 00000000 fe:00 45    /x/llama_cpp_python.libs/libcublas-1a2b.so.12",
        "7f0000004000-7f0000005000 r-xp 00000000 fe:00 45    /usr/lib/libc.so.6",
        "7f0000005000-7f0000006000 rw-p 00000000 00:00 0     [heap]",
        "7f0000006000-7f0000007000 rw-p 00000000 00:00 0",
    ]
    (proc / "7" / "maps").write_text("\n".join(mapped), encoding="utf-8")
    seen = running._Process(7).look()
    assert seen.devices == ("/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidiactl")
    assert [Path(file).name for file in seen.libraries] == [
        "libggml-cuda.so (deleted)",
        "libcuda.so.580.65.06",
        "libcublas-1a2b.so.12",
    ]
    assert (seen.seen, seen.program, seen.resident) == (True, "python -c \ufffd", 2 << 20)
    assert seen.variables == {"CUDA_VISIBLE_DEVICES": "1", "LD_PRELOAD": "a=b"}
    assert (seen.shares_files, seen.unseen) == (True, ())


@systems.proc
def test_the_model_is_read_from_the_files_of_the_process(proc: Path) -> None:
    """A container has other files under the same names."""
    (proc / "7" / "ns" / "mnt").unlink()
    (proc / "7" / "ns" / "mnt").symlink_to("mnt:[4026532000]")
    file = synthetic_model.write(proc / "7" / "root" / "models" / "sha256-1a2b")
    (proc / "7" / "root" / "models" / "broken.gguf").write_bytes(b"GGUF\x03\0\0\0")
    layers = gguf.layers(file.read_bytes())
    cut = layers[1].tensors[0][0] // mmap.PAGESIZE * mmap.PAGESIZE
    parts = ((0, mmap.PAGESIZE), (mmap.PAGESIZE, cut))  # one part, of which Linux makes two
    mapped = [
        *(f"{begin:x}-{end:x} r--s {begin:08x} fe:00 1 /models/sha256-1a2b" for begin, end in parts),
        "ff0000-ff1000 r--s 00000000 fe:00 2 /models/broken.gguf",
        "ff2000-ff3000 r--s 00000000 fe:00 3 /models/gone.gguf (deleted)",
    ]
    (proc / "7" / "maps").write_text("\n".join(mapped), encoding="utf-8")
    seen = running._Process(7).look()
    read, *unread = seen.models
    assert (read.file, read.mapped, read.layers, read.in_memory) == ("/models/sha256-1a2b", cut, (0, 1), (0,))
    assert [(Path(each.file).name, bool(each.problem)) for each in unread] == [
        ("broken.gguf", True),
        ("gone.gguf (deleted)", True),
    ]
    assert not seen.shares_files


def test_other_systems_have_no_proc() -> None:
    assert "only Linux has; this is win32" in str(running.problem(os.getpid(), "win32"))
    if not systems.ON_WINDOWS:
        assert running.problem(os.getpid(), "linux") is None


# ---------------------------------------------------------------------------------------------------------- the model


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def write(*, tensors: list[tuple[str, int]], entries: bytes = b"", count: int = 0, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), count) + entries
    for name, offset in tensors:
        head += text(name) + struct.pack("<IQQIQ", 2, 8, 8, 0, offset)
    return head


ENTRIES = (
    text("general.alignment") + struct.pack("<II", 4, 64)
    + text("a") + struct.pack("<IB", 7, 1)
    + text("b") + struct.pack("<I", 8) + text("a string")
    + text("c") + struct.pack("<IIQ", 9, 8, 2) + text("x") + text("yy")
    + text("d") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3)
    + text("e") + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ2H", 2, 2, 1, 2)
    + text("f") + struct.pack("<Id", 12, 0.5)
)  # fmt: skip
TENSORS = [
    ("token_embd.weight", 0),
    ("blk.1.ffn_up.weight", 16384),
    ("blk.0.ffn_up.weight", 8192),
    ("v.blk.0.x", 24576),
]


@pytest.mark.parametrize("version", [2, 3])
def test_the_places_of_the_layers_are_read(version: int) -> None:
    head = write(tensors=TENSORS, entries=ENTRIES, count=7, version=version)
    start = -(-len(head) // 64) * 64
    data = head.ljust(start, b"\0") + bytes(32768)
    first, second = gguf.layers(data)
    assert (first.number, first.tensors) == (0, ((start + 8192, start + 16384),))
    assert (second.number, second.tensors) == (1, ((start + 16384, start + 24576),))
    assert first.is_in([(0, start + 16384)])
    assert not first.is_in([(0, start + 16383)])
    assert not first.is_in([(start + 8193, len(data))])
    assert not gguf.Layer(0, ((0, mmap.PAGESIZE),)).is_in([(0, 1 << 20)])  # a page says nothing


def test_a_file_that_is_cut_or_is_no_model_is_not_read() -> None:
    whole = write(tensors=TENSORS, entries=ENTRIES, count=7)
    for cut in range(len(whole)):
        with pytest.raises(gguf.UnreadableError, match="cannot read it"):
            gguf.layers(whole[:cut])
    for wrong in (b"GGML" + whole[4:], write(tensors=[], version=1), write(tensors=[], version=3 << 24)):
        with pytest.raises(gguf.UnreadableError):
            gguf.layers(wrong)
    unknown = write(tensors=[], entries=text("x") + struct.pack("<I", 99), count=1)
    with pytest.raises(gguf.UnreadableError):
        gguf.layers(unknown)
