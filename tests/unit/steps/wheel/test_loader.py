"""The loader's own judgement; what it does with libraries is in the integration tests."""

import ast
import ctypes
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from build_config.steps.wheel import assemble
from build_config.system.layout import PACKAGE
from tests.support import wheel_modules

SOURCES = PACKAGE / "wheel_project" / "python"


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return wheel_modules.loader(tmp_path_factory.mktemp("site"))


def _build(loader: ModuleType, *shards: tuple[str, ...], cuda: str = "13.0") -> Any:
    return loader._Build(
        cuda=cuda,
        shards=tuple(loader._Shard(f"s{i}", f"libggml-cuda-s{i}.so", archs) for i, archs in enumerate(shards)),
        oldest_driver="580",
        libraries=("libcudart.so.13", "libcublas.so.13"),
        build_command="nox -s build_cuda_wheel -- --arch {arch}",
    )


def _driver(loader: ModuleType, *capabilities: str, cuda: str = "13.0") -> Any:
    devices = tuple(loader.Device(i, f"GPU {c}", c, 8 << 30) for i, c in enumerate(capabilities))
    return loader._Driver(cuda, devices)


def test_a_loader_that_finds_nothing_does_not_raise_and_keeps_the_reason(loader: ModuleType) -> None:
    status, _messages = loader.load_safely()
    assert not status.loaded
    assert "install the wheel again" in status.reason


@pytest.mark.parametrize(
    "source", sorted([*SOURCES.glob("*.py"), *assemble.SHARED_MODULES.values()]), ids=lambda source: source.stem
)
def test_the_source_is_python_3_8(source: Path) -> None:
    """Upstream supports it, and the pipeline's own Python would not notice."""
    ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))


def test_an_uncovered_card_is_named_with_the_command_that_covers_it(loader: ModuleType) -> None:
    reason = loader._why_not(_build(loader, ("89-real",)), _driver(loader, "7.5"), (), ())
    assert "GPU 7.5 (compute capability 7.5)" in reason
    assert "89-real" in reason
    assert "`nox -s build_cuda_wheel -- --arch 75`" in reason
    assert "CUDA_VISIBLE_DEVICES" not in reason


@pytest.mark.parametrize(
    ("capabilities", "command"),
    [
        (("8.9", "7.5"), "`nox -s build_cuda_wheel -- --arch 75+89`"),
        (("12.0", "8.6", "8.6"), "`nox -s build_cuda_wheel -- --arch 86+120`"),
        (("6.1",), "`nox -s build_cuda_wheel -- --cuda 12.9 --arch 61`"),
        (("6.1", "12.0"), "`nox -s build_cuda_wheel -- --cuda 12.9 --arch 61+120`"),
        (("3.5", "8.9"), "`nox -s build_cuda_wheel -- --cuda 11.8 --arch 35+89`"),
        (("3.5", "8.9", "12.0"), "`nox -s build_cuda_wheel -- --arch 89+120` (no CUDA release compiles for all"),
    ],
)
def test_the_command_builds_one_shard_for_all_gpus(
    loader: ModuleType, capabilities: tuple[str, ...], command: str
) -> None:
    said = loader._build_for(_build(loader, ("80-real",)), _driver(loader, *capabilities).devices)
    assert said.startswith(command)


def test_only_the_gpus_without_code_in_the_shard_are_left_out(loader: ModuleType) -> None:
    """ggml loads a single CUDA module."""
    build, devices = _build(loader, ("89-real",), ("90-real",)), _driver(loader, "8.9", "9.0", "8.9").devices
    assert loader._left_out(build, "s0", devices) == devices[1:2]
    assert loader._left_out(build, "s1", devices) == (devices[0], devices[2])
    assert loader._left_out(build, None, devices) == ()


def test_a_gpu_without_code_is_not_the_reason_if_another_has_some(loader: ModuleType) -> None:
    reason = loader._why_not(_build(loader, ("89-real",)), _driver(loader, "8.9", "7.5"), (), ())
    assert "has code for" not in reason


def test_a_driver_of_the_same_major_version_is_not_blamed(loader: ModuleType) -> None:
    too_old = loader._why_not(_build(loader, ("89-real",)), _driver(loader, "7.5", cuda="12.8"), (), ())
    assert "CUDA 12.8 at most" in too_old
    assert "driver 580 or later" in too_old
    later_toolkit = _build(loader, ("89-real",), cuda="13.2")
    assert "driver" not in loader._why_not(later_toolkit, _driver(loader, "7.5", cuda="13.0"), (), ())


def test_only_the_missing_library_is_named(loader: ModuleType) -> None:
    libraries = (
        loader.Library("libcudart.so.13", "/somewhere/libcudart.so.13", None),
        loader.Library("libcublas.so.13", None, "libcublas.so.13: no such file"),
    )
    reason = loader._why_not(_build(loader, ("89-real",)), _driver(loader, "8.9"), libraries, ())
    assert "missing, libcublas.so.13: no such file:" in reason
    assert "libcudart.so.13" not in reason
    assert "pip install 'nvidia-cublas==13.*' 'nvidia-cuda-runtime==13.*'" in reason.replace('"', "'")


NOT_FOUND = "Could not find module '{}' (or one of its dependencies)"


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_reasons_on_windows_speak_of_no_container_and_repeat_no_hint_for_programmers(
    loader: ModuleType, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    def load(name: str) -> None:
        raise FileNotFoundError(f"{NOT_FOUND.format(name)}. Try using the full path with constructor syntax.")

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    monkeypatch.setattr(sys, "platform", platform)
    on_windows = platform == "win32"
    driver = loader._ask_driver().problem
    no_gpu = {"cuda": "13.0", "error": 0, "devices": []}
    monkeypatch.setattr(loader._cuda_driver, "ask_cuda", lambda: no_gpu)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    blas = (loader.load_library("cublasLt64_13.dll"), loader.load_library("cublas64_13.dll"))
    build, devices = _build(loader, ("89-real",)), _driver(loader, "8.9")
    missing = loader._why_not(build, devices, blas, ())
    shard = loader._why_not(build, devices, (), ())
    assert f"({NOT_FOUND.format(loader._cuda_driver.DRIVER)}): install the GPU's driver" in driver
    assert ", ".join(NOT_FOUND.format(library.soname) for library in blas) + ": " in missing
    assert "libggml-cuda-s0.so' (or one of its dependencies)): install the wheel again" in shard
    assert ('pip install "nvidia-cublas==13.*"' in missing) == on_windows, "cmd knows no single quotes"
    for reason in (driver, loader._ask_driver().problem):
        assert ("container" not in reason) == on_windows


@pytest.mark.parametrize(
    ("cuda", "packages"),
    [("11.8", "'nvidia-cublas-cu11==11.*' 'nvidia-cuda-runtime-cu11==11.*'"), ("12.4", "'nvidia-cublas-cu12==12.*'")],
)
def test_before_cuda_13_the_missing_packages_have_other_names(loader: ModuleType, cuda: str, packages: str) -> None:
    earlier = _build(loader, ("61-real",), cuda=cuda)
    missing = (loader.Library("libcublas.so.x", None, "libcublas.so.x: no such file"),)
    reason = loader._why_not(earlier, _driver(loader, "6.1"), missing, ())
    assert f"pip install {packages}" in reason.replace('"', "'")


@pytest.mark.parametrize(
    ("file", "variant"),
    [
        ("/p/llama_cpp/lib/libggml-cuda-sm89.so", "sm89"),
        ("/p/llama_cpp/lib/libggml-cpu-zen4.so", "zen4"),
        ("ggml-cpu-haswell.dll", "haswell"),
        ("/p/libsomething.so", None),
        (None, None),
    ],
)
def test_the_variant_is_read_from_the_file_name(loader: ModuleType, file: str | None, variant: str | None) -> None:
    assert loader._Backend("any", 1, file).variant == variant
