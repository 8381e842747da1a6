"""The kernels of a wheel: nvcc's commands up to the PTX, the comparison with the cubin, what is kept or refused."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from build_config.errors import ValidationError
from build_config.model import CudaArch
from build_config.system.processes import Command, Completed
from build_config.testbed import emulated_device
from build_config.testbed.emulated_device import KernelUse, kernels, ptx_files, server
from build_config.testbed.emulated_device.kernels import Kernels
from build_config.testbed.emulated_device.ptx_files import PtxFile, PtxFiles
from build_config.testbed.emulated_device.shard_code import ShardCode

pytestmark = pytest.mark.unit

ARCH = CudaArch.parse("89")
CUBIN = hashlib.sha256(b"the cubin").hexdigest()


@dataclass
class Programs:
    """nvcc, its parts and gcc: a list of commands, and files for all ``-o``."""

    listed: list[str]
    ran: list[str] = field(default_factory=list)

    def run(self, command: Command, **_: object) -> Completed:
        self.ran.append(Path(command.argv[0]).name)
        output = "\n".join(f"#$ {line}" for line in self.listed) if "--dryrun" in command.argv else ""
        if "-o" in command.argv and not output:
            target = Path(command.argv[command.argv.index("-o") + 1])
            content = {".ptx": b"the PTX", ".cubin": b"the cubin"}.get(target.suffix, b"a library")
            ((command.cwd or Path()) / target).write_bytes(content)
        return Completed(command=command, returncode=0, output=output, seconds=0.0)


@pytest.fixture(name="programs")
def _programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Programs:
    programs = Programs(
        [
            "PATH=/toolkit/bin:",
            "CICC_PATH=/toolkit/nvvm/bin",
            f'g++ -E -x c++ "{tmp_path}/a.cu" -o "a.ii"',
            'cudafe++ --gen_c_file_name "a.cudafe1.cpp" "a.ii"',
            f'"$CICC_PATH/cicc" -arch compute_75 "a.ii" -o "{tmp_path}/other.ptx"',
            f'ptxas -arch=sm_75 "{tmp_path}/other.ptx" -o "{tmp_path}/other.cubin"',
            f'"$CICC_PATH/cicc" -arch compute_89 "a.ii" -o "{tmp_path}/a.ptx"',
            f'ptxas -arch=sm_89 -m64 "{tmp_path}/a.ptx" -o "{tmp_path}/a.cubin"',
            "fatbinary --image3=kind=elf,sm=89,file=a.cubin",
            "g++ -c a.cudafe1.cpp -o a.o",
        ]
    )
    monkeypatch.setattr(ptx_files, "run", programs.run)
    monkeypatch.setattr(kernels, "run", programs.run)
    return programs


@pytest.fixture(name="files")
def _files(tmp_path: Path, programs: Programs) -> PtxFiles:
    source = tmp_path / "ggml" / "src" / "ggml-cuda" / "norm.cu"
    source.parent.mkdir(parents=True)
    source.write_text("kernels", encoding="utf-8")
    command = f"/bin/sccache /toolkit/bin/nvcc -O3 -c {source} -o norm.o"
    entries = [
        {"file": str(source), "directory": str(tmp_path), "command": command},
        {"file": "a.cpp", "directory": "/", "command": "g++ a.cpp"},
    ]
    (tmp_path / "compile_commands.json").write_text(json.dumps(entries), encoding="utf-8")
    assert programs.ran == []
    return PtxFiles(build=tmp_path, arch=ARCH, folder=tmp_path / "ptx")


def test_nvcc_is_followed_to_the_ptx_and_the_cubin_of_one_architecture(files: PtxFiles, programs: Programs) -> None:
    made = files.make(0)
    assert programs.ran == ["nvcc", "g++", "cudafe++", "cicc", "ptxas"]
    assert made == PtxFile(source="norm.cu", path=made.path, cubin=CUBIN)
    assert made.path.read_bytes() == b"the PTX"


def test_ptx_is_kept_until_an_input_changes(tmp_path: Path, files: PtxFiles, programs: Programs) -> None:
    first = files.make(0)
    programs.ran.clear()
    assert files.make(0) == first
    assert programs.ran == []
    (tmp_path / "ggml" / "src" / "common.cuh").write_text("a new header", encoding="utf-8")
    again = PtxFiles(build=tmp_path, arch=ARCH, folder=tmp_path / "ptx")
    assert again.make(0).path != first.path
    assert "cicc" in programs.ran


def test_a_build_without_its_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"compile_commands\.json is missing") as caught:
        PtxFiles(build=tmp_path / "none", arch=ARCH, folder=tmp_path / "ptx")
    assert caught.value.remedy == "build the wheel here first"


def test_an_architecture_that_nvcc_does_not_list_is_named(tmp_path: Path, files: PtxFiles) -> None:
    other = PtxFiles(build=tmp_path, arch=CudaArch.parse("90"), folder=files.folder)
    with pytest.raises(ValidationError, match="no command that assembles PTX for 90-real"):
        other.make(0)


def made(tmp_path: Path, files: PtxFiles, *, cubins: tuple[str, ...] = (CUBIN,)) -> Kernels:
    code = ShardCode(arch=ARCH, cubins=cubins, kernels={"good": 0, "bad": 0})

    def translate(_ptx: PtxFile, name: str) -> str:
        if name == "bad":
            raise ValidationError("norm.cu:7:1: wgmma is not known")
        return "int ptx_image;"

    return Kernels(code=code, files=files, folder=tmp_path / "kernels", cc="gcc", translate=translate)


def test_only_a_kernel_of_the_wheels_own_cubin_is_executed(tmp_path: Path, files: PtxFiles) -> None:
    kernels = made(tmp_path, files)
    assert kernels.library("good").suffix == ".so"
    assert (kernels.facts["good"].source, kernels.facts["good"].identical) == ("norm.cu", True)
    other = made(tmp_path, files, cubins=("b" * 64,))
    with pytest.raises(ValidationError, match=r"the PTX of norm\.cu is not that of the wheel's cubin"):
        other.library("good")
    assert (other.facts["good"].source, other.facts["good"].identical) == ("norm.cu", False)


def test_a_kernel_that_two_threads_want_is_made_once(tmp_path: Path, files: PtxFiles, programs: Programs) -> None:
    kernels = made(tmp_path, files)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(kernels.library, ["good"] * 8))
    assert len(paths) == 1
    assert (programs.ran.count("ptxas"), programs.ran.count("gcc")) == (1, 1)
    assert set(kernels.seconds) == {"PTX", "translation", "compilation"}


def test_a_compiled_kernel_is_kept(tmp_path: Path, files: PtxFiles, programs: Programs) -> None:
    first = made(tmp_path, files).library("good")
    programs.ran.clear()
    assert made(tmp_path, files).library("good") == first
    assert "gcc" not in programs.ran


def test_a_compiled_kernel_is_not_taken_by_another_processor(
    tmp_path: Path, files: PtxFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(tmp_path, files).library("good")
    monkeypatch.setattr("build_config.system.machine.cpu_model", lambda: "an older one")
    assert made(tmp_path, files).library("good") != first


@pytest.mark.parametrize(
    ("name", "cubins", "reason"),
    [
        ("bad", (CUBIN,), "wgmma is not known"),
        ("unknown", (CUBIN,), "does not contain unknown"),
        ("good", (CUBIN, CUBIN), "2 cubins, its build has 1 CUDA files"),
    ],
)
def test_a_kernel_that_cannot_be_translated_is_refused_by_name(
    tmp_path: Path, files: PtxFiles, name: str, cubins: tuple[str, ...], reason: str
) -> None:
    kernels = made(tmp_path, files, cubins=cubins)
    assert reason in server._answer({89: kernels}, "89", name)
    assert reason in (kernels.facts[name].refused or "")


def test_the_server_knows_the_architectures_of_the_wheel_only(tmp_path: Path, files: PtxFiles) -> None:
    served = {89: made(tmp_path, files)}
    assert server._answer(served, "89", "good").startswith(f"library {tmp_path}")
    assert server._answer(served, "90", "good") == "there is no PTX for sm_90"
    assert server._answer(served, "x", "good") == "there is no PTX for sm_x"


def test_the_counters_of_several_processes_are_added() -> None:
    def use(name: str, seconds: float, *executed: int) -> KernelUse:
        return KernelUse(name=name, code=89, launches=2, blocks=3, seconds=seconds, executed=executed, lines=(1, 5))

    first, second = emulated_device.merged([use("a", 1, 4, 0), use("b", 3, 1, 1), use("a", 1, 1, 0)])
    assert (first.name, second.name) == ("b", "a")
    assert (second.launches, second.blocks, second.seconds, second.executed) == (4, 6, 2, (5, 0))
    assert second.missed == (5,)


def test_a_process_that_crashed_has_no_report(tmp_path: Path) -> None:
    assert emulated_device.read_report(tmp_path / "none.json") == ()
