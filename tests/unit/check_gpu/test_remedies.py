"""Every remedy that is a command of ours works, whatever GPU it is for."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from build_config import archs
from check_gpu import coverage, import_errors, log, remedies
from check_gpu.diagnosis import diagnose
from check_gpu.facts import CudaLibrary, Device, Driver, Facts, Installation, Load, Machine, OwnBuild
from check_gpu.result import Code
from tests.support import remedy_commands
from tests.support.diagnosis_cases import CASES, Case

pytestmark = pytest.mark.unit

KNOWN = sorted(
    {number for numbers in coverage.COMPILES_FOR.values() for number in numbers}
    | {archs.as_number(gpu.capability) for gpu in archs.known_gpus()}
    | {20, 30, *coverage.OTHER_PROCESSORS}
)
GPUS = [f"{number // 10}.{number % 10}" for number in KNOWN]
BUILDABLE = {number for numbers in coverage.COMPILES_FOR.values() for number in numbers}.difference(
    coverage.OTHER_PROCESSORS
)
NO_KERNEL = "CUDA error: no kernel image is available for execution on the device"


def of_log(text: str) -> str:
    load = Load(n_gpu_layers=None, model="a.log", stage="log", log=("x",), signs=log.read(text.splitlines()))
    return diagnose(Facts(machine=Machine(system="linux"), load=load)).command or ""


def live(*capabilities: str, cuda: bool) -> Facts:
    """A build that does not fit these GPUs: without CUDA code, or with code for another GPU only."""
    devices = tuple(Device(index, "a GPU", capability, 1) for index, capability in enumerate(capabilities))
    library = CudaLibrary("libggml-cuda.so", code=("1-real",), needs=("libcudart.so.12",))
    installation = Installation(
        python="/venv/bin/python",
        package="/venv/llama_cpp",
        version="0.3.16",
        libraries=("libggml.so",),
        cuda=(library,) if cuda else (),
    )
    load = Load(n_gpu_layers=-1, model="m", stage="done", tokens=4, signs=log.read([]))
    driver = Driver(version="580.1", cuda="13.0", devices=devices, cards=("a GPU",))
    return Facts(Machine(system="linux", card_on_bus=True), installation, driver, load)


def devices(*capabilities: str) -> str:
    return "\n".join(f"  Device {n}: a GPU, compute capability {each}, VMM: yes" for n, each in enumerate(capabilities))


def check(command: str, *capabilities: str) -> None:
    """The commands of ours in it are parsed and build one shard for all of the GPUs that a build can be for."""
    shards = remedy_commands.resolve(command)
    able = [capability for capability in capabilities if archs.as_number(capability) in BUILDABLE]
    assert len(shards) == (1 if able else 0), command
    if not able:
        assert "build_cuda_wheel" not in command
    for capability in able:
        left_out = f"no toolkit compiles for {capability} as well"
        assert archs.covers(shards[0].archs, capability) or left_out in command, command


@pytest.mark.parametrize("capability", GPUS)
def test_the_remedy_of_a_log_for_one_gpu(capability: str) -> None:
    check(of_log(f"{devices(capability)}\n{NO_KERNEL}"), capability)
    arch = f"{archs.as_number(capability)}0"
    check(of_log(f"ERROR: CUDA kernel x has no device code compatible with CUDA arch {arch}."), capability)


def test_the_remedy_of_a_log_for_two_gpus() -> None:
    for pair in itertools.combinations(GPUS, 2):
        check(of_log(f"{devices(*pair)}\n{NO_KERNEL}"), *pair)


@pytest.mark.parametrize("capability", GPUS)
@pytest.mark.parametrize("cuda", [True, False])
def test_the_remedy_of_an_installation(capability: str, *, cuda: bool) -> None:
    found = diagnose(live(capability, cuda=cuda))
    assert found.code is (Code.CARD_NOT_COVERED if cuda else Code.CPU_ONLY_BUILD)
    check(found.command or "", capability)


def test_a_wheel_of_this_project_is_built_again_on_windows() -> None:
    found = live("7.5", cuda=True)
    assert found.installation is not None
    ours = OwnBuild("13.0", "580", ("cublas64_13.dll",), "nox -s build_cuda_wheel -- --arch {arch}")
    for own, words in (
        (ours, "nox -s build_cuda_wheel -- --arch 75, then: "),
        (None, "set CMAKE_ARGS=-DGGML_CUDA=on, "),
    ):
        installation = replace(found.installation, own=own)
        there = replace(found, machine=Machine(system="win32", card_on_bus=True), installation=installation)
        assert (diagnose(there).command or "").startswith(words)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kind}: {case.name}" for case in CASES])
def test_every_remedy_of_a_log_is_a_command_that_exists(case: Case) -> None:
    """With the GPU of the log replaced by each of the table."""
    for gpu in archs.known_gpus():
        text = re.sub(r"compute capability \d+\.\d+", f"compute capability {gpu.capability}", case.log)
        remedy_commands.resolve(of_log(text))


def test_a_command_that_does_not_work_is_found() -> None:
    for command in ("--arch 61", "--cuda 12.9 --arch 30", "--no-such-option"):
        with pytest.raises(Exception, match=r"cannot compile for|No such option"):
            remedy_commands.resolve(f"nox -s build_cuda_wheel -- {command}")
    with pytest.raises(KeyError):
        remedy_commands.resolve("nox -s no_such_session")
    with pytest.raises(SystemExit):
        remedy_commands.resolve("python check_gpu.pyz --no-such-option")


def test_the_processors_of_the_gpus_are_those_of_the_pipeline() -> None:
    for gpu in archs.known_gpus():
        assert (archs.as_number(gpu.capability) in coverage.OTHER_PROCESSORS) is gpu.another_processor, gpu


def test_every_kind_of_failed_import_has_a_remedy() -> None:
    known = [case.log for case in CASES if case.kind == "D"]
    found = {import_errors.classify(text).meaning for text in known}
    rest = {
        "OpenMP is missing",
        "a library is missing",
        "the system does not allow a library to be mapped as it asks",
        "a library that it needs is missing",
    }
    assert {failure.meaning for failure in import_errors.FAILURES} - found <= rest
    for error in (
        "libgomp.so.1: cannot open shared object file",
        "Library not loaded: @rpath/libggml.dylib",
        "libllama.so: cannot enable executable stack as shared object requires: Invalid argument",
        "something else",
    ):
        facts = Facts(Machine(system="linux"), Installation(python="/venv/bin/python", version="0.3.16"))
        assert remedies.repair_import(facts, error)
