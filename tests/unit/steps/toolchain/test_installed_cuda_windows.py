"""An installed toolkit on Windows: folders as the installer makes them, with a recorded answer of nvcc."""

from pathlib import Path

import pytest

from build_config.errors import ToolkitMissingError
from build_config.steps.toolchain.windows import installed_cuda
from build_config.system import processes

NVCC = """nvcc: NVIDIA (R) Cuda compiler driver
Copyright (c) 2005-2024 NVIDIA Corporation
Built on Thu_Mar_28_02:30:10_Pacific_Daylight_Time_2024
Cuda compilation tools, release {release}, V{release}.131
Build cuda_{release}.r{release}/compiler.34097967_0
"""
"""The form of https://docs.nvidia.com/cuda/cuda-installation-guide-microsoft-windows/ (verification)."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """12.4 and 12.9 in the installer's form; each nvcc tells the release of its folder."""

    def run(command: processes.Command, **_: object) -> processes.Completed:
        release = Path(command.argv[0]).parents[1].name.removeprefix("v")
        return processes.Completed(command=command, returncode=0, output=NVCC.format(release=release), seconds=0.1)

    monkeypatch.setattr(processes, "run", run)
    monkeypatch.setattr(installed_cuda, "DEFAULT", tmp_path)
    for release in ("12.4", "12.9"):
        for part in installed_cuda.PARTS:
            file = tmp_path / f"v{release}" / part
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{part} of {release}")
    return tmp_path


def variables(folder: Path) -> dict[str, str]:
    releases = {"CUDA_PATH": "12.9", "CUDA_PATH_V12_4": "12.4", "CUDA_PATH_V12_9": "12.9"}
    return {name: str(folder / f"v{release}") for name, release in releases.items()}


def test_cuda_path_names_the_toolkit_and_another_release_has_its_own_variable_or_the_usual_place(
    installed: Path,
) -> None:
    toolkit = installed_cuda.find(variables(installed))
    assert (toolkit.version, toolkit.root, toolkit.locked) == ("12.9.131", installed / "v12.9", False)
    assert toolkit.nvcc.path == installed / "v12.9" / "bin" / "nvcc.exe"
    toolkit = installed_cuda.find(variables(installed), "12.4")
    assert toolkit.root == installed / "v12.4"
    assert "not CUDA_PATH" in toolkit.nvcc.found_via
    assert installed_cuda.find({}, "12.4").root == installed / "v12.4"


@pytest.mark.usefixtures("installed")
def test_two_releases_are_not_the_same_and_one_is_the_same_twice() -> None:
    found = [installed_cuda.find({}, release).identity for release in ("12.4", "12.9", "12.4")]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("part", ["include/cublas_api.h", "lib/x64/cublas.lib", "nvvm/bin/cicc.exe"])
def test_a_toolkit_that_was_installed_in_part_is_not_taken(installed: Path, part: str) -> None:
    (installed / "v12.4" / part).unlink()
    with pytest.raises(ToolkitMissingError, match=part.rpartition("/")[2]):
        installed_cuda.find(variables(installed), "12.4")


def test_what_is_not_there_is_told_with_everything_that_was_tried(installed: Path) -> None:
    with pytest.raises(ToolkitMissingError, match=r"that is CUDA 12\.9\.131") as missing:
        installed_cuda.find(variables(installed), "11.8")
    assert str(installed / "v11.8") in missing.value.message
    with pytest.raises(ToolkitMissingError, match="CUDA_PATH is not set"):
        installed_cuda.find({})
