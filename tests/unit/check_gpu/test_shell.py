"""The commands that are printed for users: each shell and each installer reads them as they were meant."""

import re
import shlex
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from build_config.system.layout import PACKAGE
from check_gpu import remedies, shell
from check_gpu.facts import CudaLibrary, Device, Driver, Facts, Installation, Machine, OwnBuild

PATHS = (
    "/opt/venv é x/bin/python",
    "/home/o'brien/venv/bin/python",
    "/data/$HOME/`id`/python",
    '/a "b"/python',
    "/a&b;c/python",
    "/plain/bin/python",
    "/srv/*/[x]/python",
    "~user/!x/python",
)
WINDOWS_PATHS = (
    r"C:\Program Files\Python312\python.exe",
    r"C:\Users\Müller & Co\venv\Scripts\python.exe",
    r"D:\100%\python.exe",
    r"D:\(x86)\python.exe",
    "D:\\ends with a backslash\\",
    r"D:\plain\python.exe",
)


def test_each_word_arrives_as_it_was_in_a_shell() -> None:
    for path in PATHS:
        typed = shell.quote([path, "llama-cpp-python==0.3.36+cu130.sm89", "nvidia-cublas==13.*", ""], system="linux")
        expected = [path, "llama-cpp-python==0.3.36+cu130.sm89", "nvidia-cublas==13.*", ""]
        assert shlex.split(typed) == expected


def test_on_windows_a_word_is_quoted_by_the_rules_of_its_programs() -> None:
    for path in (*WINDOWS_PATHS, "", "a\tb", 'say "no"', 'x\\" y\\\\'):
        typed = shell.quote([path], system="win32")
        assert typed in {subprocess.list2cmdline([path]), f'"{path}"'}
        assert typed.startswith('"') or not re.search(r"[\s&|<>^()%!;,]", path)


@pytest.mark.parametrize(
    ("installer", "expected"),
    [
        (shell.PIP, "'/x y/python' -m pip install --no-cache-dir 'a==1.*'"),
        (shell.UV, "uv pip install --python '/x y/python' --no-cache-dir 'a==1.*'"),
        (
            shell.ENSUREPIP,
            "'/x y/python' -m ensurepip && '/x y/python' -m pip install --no-cache-dir 'a==1.*'",
        ),
        (
            shell.NONE,
            f"curl -sS {shell.GET_PIP} | '/x y/python' - && '/x y/python' -m pip install --no-cache-dir 'a==1.*'",
        ),
    ],
)
def test_what_can_install_there_installs(installer: str, expected: str) -> None:
    arguments = ["--no-cache-dir", "a==1.*"]
    assert shell.install(arguments, python="/x y/python", installer=installer, system="linux") == expected


@pytest.mark.parametrize(
    ("installer", "system", "expected"),
    [
        (shell.PIP, "linux", "CMAKE_ARGS='-D x' python -m pip install a"),
        (shell.UV, "linux", "CMAKE_ARGS='-D x' uv pip install --python python a"),
        (shell.ENSUREPIP, "linux", "python -m ensurepip && CMAKE_ARGS='-D x' python -m pip install a"),
        (shell.PIP, "win32", 'set "CMAKE_ARGS=-D x" && python -m pip install a'),
    ],
)
def test_the_options_of_cmake_reach_the_command_that_builds(installer: str, system: str, expected: str) -> None:
    assert shell.install(["a"], installer=installer, cmake_args="-D x", system=system) == expected


# ---------------------------------------------------------------------------------------------------------- remedies

GPU = Device(0, "a GPU", "8.9", 1)
OWN = OwnBuild("13.0", "580", ("libcublas.so.13",), "nox -s build_cuda_wheel -- --arch {arch}")


def all_remedies(facts: Facts) -> list[str]:
    own = replace(facts, installation=facts.installation and replace(facts.installation, own=OWN))
    return [
        remedies.install_cuda_build(facts),
        remedies.install_cpu_build(facts),
        remedies.reinstall(facts),
        remedies.reinstall(facts, portable=True),
        remedies.repair_import(facts, "ModuleNotFoundError: No module named 'diskcache'"),
        remedies.repair_import(facts, "ImportError: anything else"),
        remedies.install_libraries(facts, ["libcublas.so.12"]),
        remedies.install_libraries(facts, ["libcudart.so.13"]),
        remedies.install_libraries(own, ["libcublas.so.13"]),
    ]


def facts(path: str, installer: str, system: str = "linux") -> Facts:
    folder = path.rpartition("/")[0]
    found = Installation(python=path, site=f"{folder}/site", version="0.3.16", installer=installer)
    driver = Driver(cuda="13.0", devices=(GPU,))
    return Facts(machine=Machine(system=system), installation=found, driver=driver)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("installer", [shell.PIP, shell.UV, shell.ENSUREPIP])
def test_every_remedy_names_the_interpreter_as_one_word_and_uses_what_is_there(path: str, installer: str) -> None:
    for command in all_remedies(facts(path, installer)):
        words = shlex.split(command.replace("install what is missing: ", ""), comments=True)
        python = words.index(path)
        if installer == shell.UV:
            assert words[python - 4 : python] == ["uv", "pip", "install", "--python"]
            continue
        assert words[python + 1 : python + 3] == ["-m", "ensurepip" if installer == shell.ENSUREPIP else "pip"]
        assert ["-m", "pip", "install"] in [words[place : place + 3] for place in range(len(words))]


@pytest.mark.parametrize("path", PATHS)
def test_the_folders_of_the_libraries_are_one_word_too(path: str) -> None:
    command = remedies.install_libraries(facts(path, shell.UV), ["libcublas.so.12"])
    site = f"{path.rpartition('/')[0]}/site"
    folders = [f"{site}/nvidia/cublas/lib", f"{site}/nvidia/cuda_runtime/lib"]
    assert shlex.split(command)[-2:] == ["export", f"LD_LIBRARY_PATH={':'.join(folders)}"]


@pytest.mark.parametrize("path", WINDOWS_PATHS)
def test_on_windows_the_remedies_are_for_its_shell(path: str) -> None:
    for command in all_remedies(facts(path, shell.PIP, "win32")):
        assert shell.quote([path], system="win32") in command
        assert "'" not in command
        assert not re.search(r"(^|&& )(export |[A-Z_]+=)", command), command


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": "0.3.16"}, "python -m pip install {again} 'llama-cpp-python==0.3.16'"),
        ({"version": None}, "python -m pip install {again} llama-cpp-python"),
        (
            {"version": "0.3.16", "cuda": (CudaLibrary("libggml-cuda.so"),)},
            "CMAKE_ARGS=-DGGML_CUDA=on python -m pip install {again} 'llama-cpp-python==0.3.16'",
        ),
        (
            {"version": "0.2.20", "cuda": (CudaLibrary("libllama.so"),)},
            "CMAKE_ARGS=-DLLAMA_CUBLAS=on python -m pip install {again} 'llama-cpp-python==0.2.20'",
        ),
        (
            {"version": "0.2.90+cu121", "distribution": "llama-cpp-python-cuda"},
            "python -m pip install {again} --find-links PAGE 'llama-cpp-python-cuda==0.2.90+cu121'  # PAGE: where ",
        ),
        (
            {"version": "0.3.36+cu130.sm89", "own": OWN},
            "python -m pip install --force-reinstall --find-links wheelhouse --only-binary llama-cpp-python 'llama-",
        ),
    ],
)
def test_the_same_build_is_installed_again_from_where_there_is_one(changes: dict[str, Any], expected: str) -> None:
    """No package index has a local version, and without an option pip compiles for the CPU."""
    seen = Facts(machine=Machine(system="linux"), installation=Installation(python="python", **changes))
    command = remedies.reinstall(seen)
    assert command.startswith(expected.format(again="--force-reinstall --no-cache-dir"))
    assert command.endswith(("'", "llama-cpp-python", "  # PAGE: where its publisher has it", remedies.CHECKOUT))
    assert str((seen.installation and seen.installation.version) or "") in command


def test_a_build_for_any_cpu_is_compiled_from_the_sources_of_its_release() -> None:
    cuda = (CudaLibrary("libggml-cuda.so"),)
    found = Installation(python="python", version="0.3.9+cu124", distribution="llama-cpp-python-cuda", cuda=cuda)
    command = remedies.reinstall(Facts(machine=Machine(system="linux"), installation=found), portable=True)
    assert command.startswith("CMAKE_ARGS='-DGGML_NATIVE=off -DGGML_CUDA=on' python -m pip install ")
    assert command.endswith(" 'llama-cpp-python==0.3.9'")


@pytest.mark.parametrize(
    ("devices", "expected"), [((Device(0, "a GPU", "8.9", 1),), "--arch 89"), ((), "# a CPU build")]
)
@pytest.mark.parametrize("library", ["libamdhip64.so.6", "librocblas.so.4", "libvulkan.so.1", "libsycl.so.8"])
def test_a_build_for_other_gpus_is_not_installed_again(
    library: str, devices: tuple[Device, ...], expected: str
) -> None:
    seen = Facts(Machine(system="linux"), Installation(python="python"), Driver(devices=devices))
    command = remedies.repair_import(seen, f"{library}: cannot open shared object file")
    assert command.startswith("this build is for ")
    assert expected in command


def test_windows_libraries_are_known_by_their_names() -> None:
    command = remedies.install_libraries(facts(r"C:\x\python.exe", shell.PIP, "win32"), ["cublas64_12.dll"])
    assert "nvidia-cublas-cu12==12.* nvidia-cuda-runtime-cu12==12.* && " in command
    assert r"\nvidia\cublas\bin;" in command
    assert command.endswith(';%PATH%"')


def test_without_an_installation_the_command_is_for_any_python() -> None:
    command = remedies.install_libraries(Facts(machine=Machine(system="linux")), ["cublas64_12.dll"])
    assert command.startswith("python -m pip install nvidia-cublas-cu12==12.* ")
    assert "export" not in command
    command = remedies.install_libraries(Facts(machine=Machine(system="linux")), ["libcublas.so.12"])
    assert command.startswith("python -m pip install 'nvidia-cublas-cu12==12.*' ")


def test_no_other_module_writes_a_command_of_pip_by_itself() -> None:
    """A constant without a path is no command with a path: those of log_diagnosis are about another machine."""
    found = {
        path.relative_to(PACKAGE.parent).as_posix()
        for folder in ("check_gpu", "build_config")
        for path in (PACKAGE.parent / folder).rglob("*.py")
        if re.search(r"-m pip install|\bsudo (rm|chown)|\bchmod [0-9+]", path.read_text(encoding="utf-8"))
    }
    assert found <= {"check_gpu/log_diagnosis.py"}
