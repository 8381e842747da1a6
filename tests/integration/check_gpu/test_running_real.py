"""`check_gpu --pid` on real processes. Doubles take the place of llama.cpp, CUDA, the driver and NVML."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from build_config.system.layout import PACKAGE
from build_config.tasks import check_gpu_file
from build_config.testbed import synthetic_model
from check_gpu import collect, gguf, process, report, running
from check_gpu.diagnosis import diagnose
from check_gpu.facts import Facts
from check_gpu.result import Code, Diagnosis
from tests.integration import conftest
from tests.support.doubles import CARD, DRIVER, NVML, compile_double

if TYPE_CHECKING:
    from collections.abc import Iterator

    from check_gpu.facts import Running

pytestmark = pytest.mark.integration

# The program maps what it is told, as llama.cpp does: the part of the model for the CPU, and each library.
PROGRAM = """
import ctypes, mmap, sys, time
model, length, *libraries = sys.argv[1:]
kept = [ctypes.CDLL(library, ctypes.RTLD_GLOBAL) for library in libraries]
if int(length):
    with open(model, "rb") as file:
        kept.append(mmap.mmap(file.fileno(), int(length), access=mmap.ACCESS_READ))
print("ready", flush=True)
time.sleep(120)
"""
CHECK = (sys.executable, "-m", "check_gpu")


@dataclass(frozen=True)
class Place:
    """Folders of doubles, and a model."""

    root: Path
    model: Path

    @property
    def package(self) -> Path:
        return self.root / "venv" / "lib" / "python3.11" / "site-packages" / "llama_cpp"

    def libraries(self, *names: str) -> list[str]:
        return [str(self.package / "lib" / name) for name in names]

    @property
    def stock(self) -> list[str]:
        """The libraries of a stock CUDA build, in the order in which they are loaded."""
        cuda = [str(self.root / "driver" / "libcuda.so.1"), str(self.root / "cuda" / "libcudart.so.13")]
        return [*cuda, *self.libraries("libggml-base.so", "libggml-cuda.so", "libllama.so")]

    @property
    def layers(self) -> tuple[gguf.Layer, ...]:
        return gguf.layers(self.model.read_bytes())

    def up_to(self, layer: int) -> int:
        """The length of the part of the model before a layer, in whole pages."""
        return self.layers[layer].tensors[0][0] // mmap.PAGESIZE * mmap.PAGESIZE


@pytest.fixture(name="place", scope="module")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("models") / "tiny.gguf")
    synthetic_model.write(place.model)
    conftest.compile_cuda(place.root)
    compile_double(place.root / "simulated" / "libcuda.so.1", DRIVER, '-DCARD="SIMULATED device 8.9 (not a GPU)"')
    compile_double(place.root / "nvml" / "libnvidia-ml.so.1", NVML, f'-DCARD="{CARD}"')
    hanging = "int sleep(unsigned); int nvmlInit_v2(void) { for (;;) sleep(1); }"
    compile_double(place.root / "hanging" / "libnvidia-ml.so.1", hanging)
    for name in ("libggml-base.so", "libggml-cuda.so", "libggml-cpu.so", "libggml-vulkan.so", "libllama.so"):
        compile_double(place.package / "lib" / name, f"int {name[3:-3].replace('-', '_')};")
    compile_double(place.root / "torch" / "libtorch_cuda.so", "int torch;")
    (place.package / "__init__.py").touch()
    (place.root / "venv" / "bin").mkdir()
    (place.root / "venv" / "bin" / "python").symlink_to(sys.executable)
    return place


@contextlib.contextmanager
def started(place: Place, libraries: list[str], *, mapped: int = 0, **variables: str) -> Iterator[int]:
    command = [sys.executable, "-c", PROGRAM, str(place.model), str(mapped), *libraries]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        try:
            yield program.pid
        finally:
            program.kill()


@dataclass(frozen=True)
class Checked:
    facts: Facts
    diagnosis: Diagnosis

    @property
    def program(self) -> Running:
        assert self.facts.running is not None
        return self.facts.running


@pytest.fixture(name="check")
def _check(place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Check a process on a machine with a driver, and with NVML if that is among the folders."""

    def check(pid: int, *, held: int | None = None, nvml: str = "nvml", **variables: str) -> Checked:
        monkeypatch.setenv("LD_LIBRARY_PATH", f"{place.root / nvml}:{place.root / 'driver'}")
        monkeypatch.setenv("DOUBLE_CUDA", "13000")
        monkeypatch.setenv("DOUBLE_CAPABILITY", "89")
        others = [f"{1 << 22}:{5 << 30}"] * 20  # more than a first answer has room for
        monkeypatch.setenv("DOUBLE_PROCESSES", ",".join([*others, *([f"{pid}:{held}"] if held is not None else [])]))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        # The tests may run in a container, whose numbers of processes NVML does not know.
        monkeypatch.setattr(running, "FIRST_PID_NAMESPACE", str(Path("/proc/self/ns/pid").readlink()))
        request = collect.Request(python=sys.executable, pid=pid)
        facts = collect.collect(request, synthetic_model.write)
        facts = dataclasses.replace(facts, machine=dataclasses.replace(facts.machine, card_on_bus=True))
        return Checked(facts, diagnose(facts))

    return check


# --------------------------------------------------------------------------------------------------- the GPU is used


def test_a_program_whose_model_has_gone_to_the_gpu_uses_it(place: Place, check: Any) -> None:
    with started(place, place.stock, mapped=place.up_to(0)) as pid:
        checked = check(pid, held=700 << 20)
    assert checked.diagnosis.code is Code.CARD_USED, checked.diagnosis
    assert f"process {pid}" in checked.diagnosis.sentence
    assert f"700 MiB on GPU 0 ({CARD})" in checked.diagnosis.sentence
    assert {*checked.program.libraries} >= {*place.stock}
    (model,) = checked.program.models
    assert (model.layers, model.in_memory, model.mapped) == ((0, 1), (), place.up_to(0))
    assert checked.program.memory is not None
    assert [(held.index, held.used) for held in checked.program.memory] == [(0, 700 << 20)]
    text = report.text(checked.facts, checked.diagnosis)
    assert f"GPU memory 700 MiB on GPU 0, {CARD}\n" in text
    json.dumps(report.document(checked.facts, checked.diagnosis))


def test_without_a_mapped_model_much_memory_on_the_gpu_and_little_here_is_needed(place: Place, check: Any) -> None:
    with started(place, place.stock) as pid:
        assert check(pid, held=5 << 30).diagnosis.code is Code.CARD_USED
        assert check(pid, held=700 << 20).diagnosis.code is Code.UNKNOWN  # CUDA alone takes as much


@pytest.mark.parametrize(
    ("libraries", "nvml", "held", "variables", "said"),
    [
        ("stock", "nowhere", 5 << 30, {}, "its memory on the GPU (libnvidia-ml.so.1: cannot open shared object"),
        ("stock", "nvml", 5 << 30, {"DOUBLE_NVML": "4"}, "its memory on the GPU (NVML error 4)"),
        ("stock", "nvml", 5 << 30, {"DOUBLE_NO_PROCESSES": "3"}, f"its memory on the GPU ({CARD}: NVML error 3"),
        ("stock", "nvml", None, {}, "holds no memory on any GPU"),
        ("stock", "nvml", -1, {}, f"memory on GPU 0 ({CARD}), whose size the driver does not tell"),
        ("stock", "nvml", 0, {}, "holds 0 MiB on GPU 0"),
        ("torch", "nvml", 5 << 30, {}, "Whether it uses the GPU is not known"),  # whose memory it is cannot be seen
    ],
    ids=["no NVML", "NVML does not start", "NVML does not tell", "no memory", "no size", "nothing", "another library"],
)
def test_without_evidence_it_is_not_known(
    place: Place, check: Any, libraries: str, nvml: str, held: int | None, variables: dict[str, str], said: str
) -> None:
    with started(
        place, [*place.stock, *([str(place.root / "torch" / "libtorch_cuda.so")] * (libraries == "torch"))]
    ) as pid:
        diagnosis = check(pid, held=held, nvml=nvml, **variables).diagnosis
    assert diagnosis.code is Code.UNKNOWN
    assert said in diagnosis.sentence
    assert "--log" in str(diagnosis.command)


def test_a_management_library_that_hangs_is_ended(place: Place, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TIMEOUT", 1.0)
    monkeypatch.setattr(collect, "SHORT_TIMEOUT", 1.0)
    with started(place, place.stock) as pid:
        checked = check(pid, held=5 << 30, nvml="hanging")
    assert checked.diagnosis.code is Code.UNKNOWN
    assert "its memory on the GPU (no answer within 1 seconds)" in checked.diagnosis.sentence


# ------------------------------------------------------------------------------------------------------ it is not used


def test_layers_in_the_memory_of_the_machine_are_named(place: Place, check: Any) -> None:
    whole = place.model.stat().st_size
    for held in (700 << 20, 5 << 30, None):
        with started(place, place.stock, mapped=whole) as pid:
            diagnosis = check(pid, held=held).diagnosis
        assert diagnosis.code is Code.NO_LAYERS_REQUESTED
        assert "2 of 2 layers of tiny.gguf (0-1) are in the memory of the machine" in diagnosis.sentence
        with started(place, place.stock, mapped=place.up_to(1)) as pid:
            diagnosis = check(pid, held=held).diagnosis
        assert diagnosis.code is Code.LAYERS_LEFT_ON_CPU
        assert "1 of 2 layers of tiny.gguf (0)" in diagnosis.sentence
        assert "n_gpu_layers=-1" in str(diagnosis.command)


@pytest.mark.parametrize(
    ("loaded", "code", "said", "command"),
    [
        (("libggml-base.so", "libggml-cpu.so", "libllama.so"), Code.BACKEND_NOT_LOADED, "libggml-cuda.so", "--python"),
        ((), Code.UNKNOWN, "no library of llama.cpp and maps no GGUF file", "ps --forest"),
    ],
)
def test_a_program_without_cuda_code(
    place: Place, check: Any, loaded: tuple[str, ...], code: Code, said: str, command: str
) -> None:
    """Memory on the GPU does not make it one that uses the GPU: another library may hold it."""
    for held in (None, 5 << 30):
        with started(place, place.libraries(*loaded)) as pid:
            diagnosis = check(pid, held=held).diagnosis
        assert diagnosis.code is code, diagnosis
        assert said in diagnosis.sentence
        assert command in str(diagnosis.command)


def test_a_cpu_only_build_is_named_with_the_command_for_its_environment(place: Place, check: Any) -> None:
    other = Place(place.root / "o'ne x", place.model)
    shutil.copytree(place.package, other.package)
    (other.package / "lib" / "libggml-cuda.so").unlink()
    (other.root / "venv" / "bin").mkdir()
    (other.root / "venv" / "bin" / "python").symlink_to(sys.executable)
    with started(other, other.libraries("libggml-base.so", "libggml-vulkan.so", "libllama.so")) as pid:
        assert check(pid, held=5 << 30).diagnosis.code is Code.UNKNOWN  # Vulkan may hold it
        diagnosis = check(pid).diagnosis
    assert diagnosis.code is Code.CPU_ONLY_BUILD
    assert "has no CUDA, only libggml-vulkan.so" in diagnosis.sentence
    python = str(other.root / "venv/bin/python").replace("'", "'\"'\"'")
    assert f"'{python}'" in str(diagnosis.command)
    assert "--arch 89" in str(diagnosis.command)


def test_a_program_that_hides_the_gpu_from_itself(place: Place, check: Any) -> None:
    with started(place, place.stock, CUDA_VISIBLE_DEVICES="-1") as pid:
        diagnosis = check(pid).diagnosis
    assert diagnosis.code is Code.CARD_HIDDEN
    assert "CUDA_VISIBLE_DEVICES='-1'" in diagnosis.sentence


def test_a_simulated_driver_is_no_gpu(place: Place, check: Any) -> None:
    libraries = [str(place.root / "simulated" / "libcuda.so.1"), *place.stock[1:]]
    with started(place, libraries, mapped=place.up_to(0)) as pid:
        diagnosis = check(pid, held=5 << 30).diagnosis
    assert diagnosis.code is Code.UNKNOWN
    assert "simulated driver" in diagnosis.sentence


# ------------------------------------------------------------------------------------------------- what is not visible


def test_a_program_of_another_user_is_not_judged(place: Place) -> None:
    """Root may look at everything, so it becomes another user; for every other user there is the first process."""
    python, prefix = shutil.which("python3", path="/usr/bin:/bin"), []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    if python is None:
        pytest.skip("another user needs a Python of the system")
    with started(place, place.stock) as pid, tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed
        Path(folder).chmod(0o755)
        one_file = check_gpu_file.make(Path(folder) / "check_gpu.pyz")
        target = pid if prefix else 1
        done = conftest.run(*prefix, python, one_file, "--pid", target, cwd="/")
    assert done.returncode == 1, done.stderr
    assert f"unknown: This user cannot see what process {target} uses: its libraries (Permission denied)" in done.stdout
    assert f"fix it: sudo python check_gpu.pyz --pid {target}" in done.stdout
    assert "its open files (Permission denied)" in done.stdout


def test_in_another_pid_namespace_nvml_is_not_believed(place: Place, tmp_path: Path) -> None:
    """Inside, the program has the number 2 or so, and NVML may well name a process of the host with that number."""
    inside = ("unshare", "--pid", "--fork", "--mount-proc")
    if conftest.run(*inside, "true").returncode != 0:
        pytest.skip("no namespaces can be made here")
    script = conftest.script(tmp_path / "run", '"$@" & sleep 2; exec python -m check_gpu --json --pid $!')
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{place.root / 'nvml'}:{place.root / 'driver'}",
        "DOUBLE_PROCESSES": ",".join(f"{pid}:{5 << 30}" for pid in range(1, 30)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    program = (sys.executable, "-c", PROGRAM, place.model, place.up_to(0), *place.stock)
    done = conftest.run(*inside, script, *program, cwd=PACKAGE.parent, env=environment)
    answer = json.loads(done.stdout.partition("\n")[2])
    assert answer["running"]["memory"] is None
    assert "another PID namespace" in answer["running"]["unseen"][-1]
    assert answer["diagnosis"]["code"] != "card-used"


def test_a_program_that_ends_meanwhile_is_not_judged(place: Place, check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    really = process.run
    with started(place, place.stock, mapped=place.up_to(0)) as pid:

        def end_first(python: str, script: str, *rest: Any, **how: Any) -> Any:
            if script == "usage":
                os.kill(pid, 9)
                while running._Process(pid)._state()[0] not in "ZX":
                    time.sleep(0.01)
            return really(python, script, *rest, **how)

        monkeypatch.setattr(process, "run", end_first)
        checked = check(pid, held=5 << 30)
    assert checked.program.ended
    assert checked.diagnosis.code is Code.UNKNOWN
    assert f"Process {pid} ended while it was examined" in checked.diagnosis.sentence


def test_a_number_that_is_given_to_another_process_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = running._Process(os.getpid())
    assert not seen.has_ended()
    monkeypatch.setattr(seen, "_started", "1")
    assert seen.has_ended()


@pytest.mark.parametrize("pid", ["0", "-5", "4194999"])
def test_a_process_that_is_not_there_is_a_wrong_option(pid: str) -> None:
    done = conftest.run(*CHECK, f"--pid={pid}", cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--pid: there is no process {pid}, or this user may not see it" in done.stderr
    done = conftest.run(sys.executable, "-m", "build_config", "check_gpu", f"--pid={pid}", cwd=PACKAGE.parent)
    assert done.returncode == 3
    assert f"there is no process {pid}" in done.stderr + done.stdout


def test_a_log_and_a_program_are_two_questions(tmp_path: Path) -> None:
    (tmp_path / "a.log").touch()
    both = ("--log", tmp_path / "a.log", "--pid", os.getpid())
    assert conftest.run(*CHECK, *both, cwd=PACKAGE.parent).returncode == 2
    assert conftest.run(sys.executable, "-m", "build_config", "check_gpu", *both, cwd=PACKAGE.parent).returncode == 3


def test_the_session_gives_the_same_answer(place: Place) -> None:
    with started(place, []) as pid:
        one = conftest.run(sys.executable, "-m", "build_config", "check_gpu", "--pid", pid, cwd=PACKAGE.parent)
        two = conftest.run(*CHECK, "--pid", pid, cwd=PACKAGE.parent)
    assert one.stdout.split() == two.stdout.split()
    assert one.returncode == two.returncode == 1
