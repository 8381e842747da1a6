"""The printed commands, typed into a real shell: in environments with pip, without pip, and made by uv."""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

from build_config.system.layout import PACKAGE
from check_gpu import collect, remedies, shell
from check_gpu.facts import Facts, Installation, Machine
from tests.integration.conftest import bare_environment, double_wheel, run, script

pytestmark = pytest.mark.integration

LINUX = Machine(system="linux")


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    """A folder whose name has to be quoted."""
    place = tmp_path / "o'ne é $HOME x"
    place.mkdir()
    return place


def found_in(python: Path, folder: Path, patch: pytest.MonkeyPatch, path: str) -> Installation:
    patch.setenv("PATH", path)
    folder.mkdir()
    return collect.find_installation(str(python), folder)


@pytest.fixture(name="without_uv")
def _without_uv(tmp_path: Path) -> str:
    """A PATH without uv, wherever this machine has it."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("sh", "printenv"):
        (folder / name).symlink_to(shutil.which(name) or "")
    return str(folder)


def test_what_can_install_into_an_environment_is_found(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_uv: str
) -> None:
    python, site = bare_environment(place / "venv")
    assert found_in(python, tmp_path / "1", monkeypatch, without_uv).installer == shell.ENSUREPIP
    uv = script(tmp_path / "uv" / "uv", "exit 0").parent
    assert found_in(python, tmp_path / "2", monkeypatch, f"{without_uv}:{uv}").installer == shell.UV
    settings = place / "venv" / "pyvenv.cfg"
    settings.write_text(settings.read_text(encoding="utf-8") + "uv = 0.9.5\n", encoding="utf-8")
    assert found_in(python, tmp_path / "3", monkeypatch, without_uv).installer == shell.UV
    (site / "pip").mkdir()
    (site / "pip" / "__init__.py").touch()
    assert found_in(python, tmp_path / "4", monkeypatch, f"{without_uv}:{uv}").installer == shell.PIP


@pytest.mark.parametrize("installer", [shell.PIP, shell.ENSUREPIP, shell.UV])
def test_the_command_installs_with_what_is_there(place: Path, installer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # uv is in the environment of the tests
    monkeypatch.setenv("PATH", path)
    if installer == shell.UV and shutil.which("uv", path=path) is None:
        pytest.skip("uv is needed")
    environment = place / "venv"
    venv.create(environment, with_pip=installer == shell.PIP, symlinks=True)
    wheel = double_wheel(place / "wheels", "CUDA = True\n")
    python = str(environment / "bin" / "python")
    options = ["--no-index", "--no-deps", "--find-links", str(wheel.path.parent), "--force-reinstall"]
    monkeypatch.setenv("UV_OFFLINE", "1")
    command = shell.install([*options, f"llama-cpp-python=={wheel.version}"], python=python, installer=installer)
    done = run("sh", "-c", command)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert run(python, "-c", "import llama_cpp; assert llama_cpp.CUDA", cwd=place).returncode == 0


def test_the_loader_gets_the_folders_of_the_libraries(place: Path, without_uv: str, tmp_path: Path) -> None:
    uv = script(tmp_path / "uv" / "uv", 'printf "%s\\n" "$@"').parent
    installation = Installation(python=f"{place}/bin/python", site=f"{place}/site", installer=shell.UV)
    command = remedies.install_libraries(Facts(machine=LINUX, installation=installation), ["libcublas.so.12"])
    done = run("sh", "-c", f"{command} && printenv LD_LIBRARY_PATH", env={"PATH": f"{uv}{os.pathsep}{without_uv}"})
    assert done.stdout.splitlines() == [
        *("pip", "install", "--python", f"{place}/bin/python"),
        *("nvidia-cublas-cu12==12.*", "nvidia-cuda-runtime-cu12==12.*"),
        f"{place}/site/nvidia/cublas/lib:{place}/site/nvidia/cuda_runtime/lib",
    ]


def test_the_report_prints_a_line_that_a_shell_reads(place: Path) -> None:
    """The case of the path with a space: nothing is installed there, and the remedy names the environment."""
    python, _ = bare_environment(place / "venv")
    model = place / "any.gguf"
    model.write_bytes(b"")
    done = run(sys.executable, "-m", "check_gpu", "--python", python, "--model", model, cwd=PACKAGE.parent)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  fix it: "))
    assert shell.quote([str(python)]) in line
    assert str(python) not in line.replace(shell.quote([str(python)]), "")
