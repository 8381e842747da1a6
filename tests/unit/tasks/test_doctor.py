import dataclasses
from pathlib import Path

import pytest

from build_config.errors import (
    CompilerMissingError,
    CompilerUnsupportedError,
    PipelineError,
    ToolkitMissingError,
    WorkRootError,
)
from build_config.model import Driver, GpuDevice, HostCompiler, Program
from build_config.system import jsonio, machine
from build_config.system.machine import NvidiaState
from build_config.tasks import doctor
from tests.support import factories, windows_machine


def program(name: str, version: str) -> Program:
    return Program(path=Path("/usr/bin") / name, version=version, found_via="PATH")


def gpu(capability: str, name: str = "NVIDIA GeForce RTX 4090") -> GpuDevice:
    return GpuDevice(index=0, name=name, capability=capability, memory=24_000_000_000)


FACTS = doctor.MachineFacts(
    python=(3, 12),
    compiler=HostCompiler(
        cc=program("gcc", "12.2.0"), cxx=program("g++", "12.2.0"), identity="0" * 64, binutils="GNU ld 2.40"
    ),
    newest_gcc=15,
    git="/usr/bin/git",
    work_root=Path("/var/tmp/llama-cuda-wheels"),  # noqa: S108  # only named
    work_root_problem=None,
    free=80_000_000_000,
    memory=32_000_000_000,
    cores=8,
    glibc="2.36",
    nvidia=NvidiaState(driver=Driver(version="580.65.06", cuda="13.0"), gpus=(gpu("8.9"),)),
    ccache=None,
    sccache=program("sccache", "0.16.0"),
)


def judged(**changes: object) -> dict[str, doctor.DoctorRow]:
    rows = doctor.judge(dataclasses.replace(FACTS, **changes))  # type: ignore[arg-type]  # names are checked at run time
    return {row.subject: row for row in rows}


def test_a_machine_with_everything_can_build_for_its_gpu() -> None:
    rows = doctor.judge(FACTS)
    assert {row.state for row in rows} == {"ok"}
    assert doctor.overall(rows)
    assert rows[-1].subject == "This machine"
    assert "--arch 89 here" in rows[-1].text


def test_without_a_gpu_and_driver_it_can_still_build() -> None:
    rows = judged(nvidia=NvidiaState())
    assert doctor.overall(tuple(rows.values()))
    assert rows["NVIDIA GPU"].state == "warning"
    assert "580 or later" in rows["NVIDIA driver"].text
    assert "can build for GPUs in other machines" in rows["This machine"].text
    numbers = rows["This machine"].text.partition("any of ")[2].partition(", or")[0].split(", ")
    assert {"75", "89", "120"} < set(numbers)
    assert not {"87", "110", "121"} & set(numbers), "those of another processor"


def installed(release: str, problem: PipelineError | None = None, compiler: object = None) -> doctor.InstalledToolkit:
    toolkit = factories.toolchain(Path("/usr/lib/nvidia-cuda-toolkit"), cuda=f"{release}.89").cuda
    return doctor.InstalledToolkit(
        toolkit=toolkit,
        compiler=compiler or dataclasses.replace(FACTS.compiler, cxx=program("g++-11", "11.3.0")),  # type: ignore[arg-type,type-var]  # of the two kinds
        problem=problem,
    )


def driver(version: str, cuda: str, *gpus: GpuDevice) -> dict[str, object]:
    return {"nvidia": NvidiaState(driver=Driver(version=version, cuda=cuda), gpus=gpus)}


MISSING: list[tuple[str, dict[str, object], str, str]] = [
    ("Python", {"python": (3, 10)}, "3.10 is too old", "3.11 or later"),
    ("C++ compiler", {"compiler": CompilerMissingError("no C++ compiler", remedy="apt")}, "no C++", "apt"),
    ("C++ compiler", {"compiler": CompilerUnsupportedError("GCC 99", remedy="g++-15")}, "GCC 99", "g++-15"),
    ("Disk", {"free": 2_500_000_000}, "2.5 GB free", "free 3.5 GB"),
    ("C library", {"glibc": ""}, "not glibc", "container"),
    ("Work root", {"work_root_problem": WorkRootError("belongs to bob", remedy="rm")}, "belongs to bob", "rm"),
]
WARNINGS: list[tuple[str, dict[str, object], str, str]] = [
    ("NVIDIA driver", driver("550.54.14", "12.4", gpu("8.9")), "runs CUDA up to 12.4", "580 or later"),
    ("NVIDIA driver", {"nvidia": NvidiaState(problem="different versions")}, "different versions", "restart"),
    ("NVIDIA GPU", driver("580.1", "13.0", gpu("6.1", "GTX 1080")), "cannot compile for it", "CUDA 12.9"),
    (
        "CUDA 11.8",
        {"installed": (installed("11.8", compiler=CompilerUnsupportedError("GCC 12", remedy="apt install g++-11")),)},
        "GCC 12",
        "g++-11",
    ),
    (
        "CUDA 12.9",
        {"installed": (installed("12.9", ToolkitMissingError("no cuBLAS", remedy="libcublas-dev-12-9")),)},
        "no cuBLAS",
        "libcublas-dev-12-9",
    ),
    ("Memory", {"memory": 900_000_000}, "so 1 of them run at a time", "add memory"),
]


@pytest.mark.parametrize(
    ("state", "subject", "changes", "text", "remedy"),
    [*(("missing", *row) for row in MISSING), *(("warning", *row) for row in WARNINGS)],
)
def test_a_problem_is_named_with_its_remedy_and_only_a_missing_requirement_prevents_a_build(
    state: str, subject: str, changes: dict[str, object], text: str, remedy: str
) -> None:
    rows = judged(**changes)
    assert rows[subject].state == state
    assert text in rows[subject].text
    assert remedy in str(rows[subject].remedy)
    assert doctor.overall(tuple(rows.values())) == (state == "warning")
    assert rows["This machine"].state == ("ok" if state == "warning" else "missing")
    assert (subject in rows["This machine"].text) == (state == "missing")


def test_a_machine_with_a_gpu_that_the_toolkit_has_dropped_can_build_for_others() -> None:
    assert "other machines" in judged(**driver("580.1", "13.0", gpu("6.1")))["This machine"].text


def test_an_installed_toolkit_of_the_locked_release_is_not_needed_and_asks_for_nothing() -> None:
    row = judged(installed=(installed("13.0", ToolkitMissingError("no cuBLAS", remedy="libcublas-dev-13-0")),))
    assert row["CUDA 13.0"].state == "ok"
    assert "not used" in row["CUDA 13.0"].text
    assert row["CUDA 13.0"].remedy is None


def test_an_installed_toolkit_is_shown_with_its_compiler_and_what_it_builds_for() -> None:
    row = judged(installed=(installed("11.8"),))["CUDA 11.8"]
    assert row.state == "ok"
    assert f"11.8.89 at {Path('/usr/lib/nvidia-cuda-toolkit')}, with g++-11 11.3.0" in row.text
    assert "--cuda 11.8 builds for 35 to 89" in row.text, "nvcc knows 90, llama.cpp does not compile for it"


@pytest.mark.parametrize("problem", [None, "different versions"])
def test_with_a_broken_driver_a_recommendation_has_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str | None
) -> None:
    monkeypatch.setattr(machine, "nvidia", lambda: NvidiaState(problem=problem))
    answer = doctor.recommend(factories.layout(tmp_path), str(tmp_path))
    assert any("driver has a problem (different versions)" in line for line in answer.advice) == bool(problem)


def test_with_little_memory_fewer_jobs_run() -> None:
    row = judged(memory=3_200_000_000)["Memory"]
    assert row.text.endswith("so 3 of them run at a time")
    assert row.remedy is None


def test_the_cache_that_will_be_used_is_named() -> None:
    assert "sccache 0.16.0" in judged()["Compiler cache"].text
    assert "ccache 4.9" in judged(ccache=program("ccache", "4.9"))["Compiler cache"].text
    old = judged(ccache=program("ccache", "4.2"))["Compiler cache"]
    assert "sccache 0.16.0 (locked); the installed ccache 4.2 is too old" in old.text
    assert judged(sccache=None)["Compiler cache"].state == "warning"


def test_the_rows_can_be_printed_as_json() -> None:
    text = jsonio.dumps(doctor.judge(dataclasses.replace(FACTS, compiler=PipelineError("none"))))
    assert '"subject": "C++ compiler"' in text


def test_on_windows_visual_cpp_is_named_and_no_c_library() -> None:
    rows = judged(platform="win-amd64", glibc="", compiler=windows_machine.toolchain().host)
    assert rows["C++ compiler"].state == "ok"
    assert "Microsoft Visual C++ 19.44.35219; CUDA 13.0 supports up to _MSC_VER 1949" in rows["C++ compiler"].text
    assert "C library" not in rows
    assert "simulated" not in judged(platform="win-amd64", nvidia=NvidiaState())["NVIDIA GPU"].text
    assert rows["This machine"].state == "ok"


@pytest.mark.parametrize(("platform", "command"), [("linux-x86_64", "sudo apt install git"), ("win-amd64", "winget")])
def test_git_is_installed_as_this_system_installs_programs(platform: str, command: str) -> None:
    assert str(judged(platform=platform, git=None)["git"].remedy).startswith(command)
