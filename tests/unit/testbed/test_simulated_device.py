from pathlib import Path

import pytest

from build_config.errors import ToolkitMissingError, ValidationError
from build_config.system.platforms.windows import WINDOWS
from build_config.testbed import simulated_device
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine, windows

LIBRARIES = SimulatedLibraries(files=(Path("/s/libcuda.so.1"), Path("/s/libcudart.so.13")), major=13)


def test_the_doubles_are_loaded_before_all_other_libraries() -> None:
    environment = LIBRARIES.environment(SimulatedMachine(capabilities=("8.9", "7.5"), memory=100))
    assert environment == {
        "LD_PRELOAD": ":".join(map(str, LIBRARIES.files)),
        "SIMULATED_DEVICES": "8.9,7.5",
        "SIMULATED_MEMORY": "100",
        "SIMULATED_FAULT": "",
    }


def test_on_windows_python_itself_loads_the_doubles_and_cublaslt_is_one_of_them(tmp_path: Path) -> None:
    doubles = windows.libraries(Path("s"), 13)
    names = ["nvcuda.dll", "nvcudart_hybrid64.dll", "cublas64_13.dll", "cublasLt64_13.dll"]
    assert [file.name for file in doubles.files] == names
    assert "LD_PRELOAD" not in doubles.environment(SimulatedMachine())
    assert doubles.environment(SimulatedMachine())[windows.PRELOAD].split(";") == [
        str(Path("s", name)) for name in names
    ]
    windows.let_preload(tmp_path)
    (line,) = (tmp_path / "simulated_device.pth").read_text(encoding="utf-8").splitlines()
    assert line.startswith("import "), "site executes no other line"
    assert windows.PRELOAD in line


@pytest.mark.parametrize(("major", "runtime"), [(11, "cudart64_110.dll"), (12, "cudart64_12.dll")])
def test_before_cuda_13_the_runtime_is_a_dll_of_its_own(major: int, runtime: str) -> None:
    assert runtime in {file.name for file in windows.libraries(Path("s"), major).files}
    needed = {name.lower() for name in WINDOWS.cuda_libraries(f"{major}.0")}
    assert needed <= {file.name.lower() for file in windows.libraries(Path("s"), major).files}


def test_a_toolkit_without_the_import_library_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolkitMissingError, match=r"cuda\.h.*cudart\.lib"):
        windows.build(tmp_path, include=tmp_path, import_library=tmp_path / "cudart.lib", major=13, cc="gcc")


def test_a_fault_and_its_argument_are_passed_on() -> None:
    machine = SimulatedMachine(fault="out-of-memory", argument=5)
    environment = LIBRARIES.environment(machine, report=Path("report.json"))
    assert environment["SIMULATED_FAULT"] == "out-of-memory:5"
    assert environment["SIMULATED_REPORT"] == "report.json"


@pytest.mark.parametrize("capabilities", [(), ("89",), ("8.9", "nine"), ("",)])
def test_a_text_that_is_not_a_compute_capability_is_refused(capabilities: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="cannot be simulated"):
        SimulatedMachine(capabilities=capabilities)


def test_an_unknown_fault_is_refused_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="fire is not a simulated fault") as caught:
        SimulatedMachine(fault="fire")
    assert "no-vmm" in (caught.value.remedy or "")


def test_missing_headers_are_named(tmp_path: Path) -> None:
    (tmp_path / "cuda.h").touch()
    with pytest.raises(ToolkitMissingError, match=r"cuda_runtime_api\.h, cublas_v2\.h is not in"):
        simulated_device.build(tmp_path / "out", include=tmp_path, major=13)


def test_a_folder_that_ld_preload_cannot_name_is_refused(tmp_path: Path) -> None:
    for header in simulated_device.HEADERS.values():
        (tmp_path / header).touch()
    with pytest.raises(ValidationError, match="LD_PRELOAD"):
        simulated_device.build(tmp_path / "a b", include=tmp_path, major=13)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValidationError, match="CUDA 14"):
        simulated_device.doubles(14)


@pytest.mark.parametrize(
    ("major", "sonames"),
    [
        (11, ("libcuda.so.1", "libcudart.so.11.0", "libcublas.so.11")),
        (12, ("libcuda.so.1", "libcudart.so.12", "libcublas.so.12")),
        (13, ("libcuda.so.1", "libcudart.so.13", "libcublas.so.13")),
    ],
)
def test_one_table_gives_the_names_for_every_version(major: int, sonames: tuple[str, ...]) -> None:
    doubles = simulated_device.doubles(major)
    assert tuple(double.soname for double in doubles) == sonames
    driver, runtime, _ = doubles
    assert driver.version is None
    assert runtime.version == runtime.soname
    assert ("cudaGetDeviceProperties_v2" in runtime.exported) is (major == 12)
    assert ("__cudaLaunchKernel" in runtime.exported) is (major == 13)
    assert "cuDeviceTotalMem_v2" in driver.exported


def test_the_table_has_no_duplicates() -> None:
    for major in simulated_device.MAJORS:
        names = [n for d in simulated_device.doubles(major) for n in (*d.exported, *dict(d.aliases))]
        assert len(names) == len(set(names))


def test_a_missing_or_incomplete_report_gives_none(tmp_path: Path) -> None:
    assert simulated_device.read_report(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_text('{"devices": [', encoding="utf-8")
    assert simulated_device.read_report(tmp_path / "half.json") is None
