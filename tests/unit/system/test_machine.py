from types import SimpleNamespace
from typing import NoReturn

import pynvml
import pytest

from build_config.system import machine


def test_the_processor_is_named_as_the_kernel_names_it() -> None:
    assert machine.parse_cpu_model("processor\t: 0\nmodel name\t: AMD  EPYC 9454P\nmodel name\t: other\n") == (
        "AMD EPYC 9454P"
    )
    assert machine.parse_cpu_model("processor : 0\n") is None


@pytest.mark.parametrize(("number", "release"), [(13000, "13.0"), (12040, "12.4"), (11080, "11.8"), (13020, "13.2")])
def test_cudas_number_is_read_as_a_release(number: int, release: str) -> None:
    assert machine.cuda_release(number) == release


def _raising(code: int) -> NoReturn:
    raise pynvml.NVMLError(code)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, None),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, None),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "updated without a restart"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions"),
    ],
)
def test_a_driver_that_does_not_answer_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, code: int, problem: str | None
) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: _raising(code))
    state = machine.nvidia()
    assert (state.driver, state.gpus) == (None, ())
    assert (state.problem is None) if problem is None else (problem in str(state.problem))


class Driver:
    """A driver with GPUs of these names, of which ``lost`` fell off the bus."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *cards: str) -> None:
        self.cards = cards
        self.shut_down = 0
        monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
        monkeypatch.setattr(pynvml, "nvmlShutdown", self._shutdown)
        monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "580.65.06")
        monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion", lambda: 13000)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: len(cards))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", self._handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda _: (12, 1))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: handle)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _: _raising(pynvml.NVML_ERROR_NOT_SUPPORTED))

    def _shutdown(self) -> None:
        self.shut_down += 1

    def _handle(self, index: int) -> str:
        if self.cards[index] == "lost":
            _raising(pynvml.NVML_ERROR_GPU_IS_LOST)
        return self.cards[index]


def test_a_driver_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch)
    state = machine.nvidia()
    assert state.driver is not None
    assert (state.driver.version, state.driver.cuda) == ("580.65.06", "13.0")
    assert (state.gpus, state.problem) == ((), None)
    assert driver.shut_down == 1


def test_a_gpu_that_is_lost_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch, "lost", "NVIDIA GB10")
    state = machine.nvidia()
    assert [(gpu.index, gpu.name, gpu.capability, gpu.memory) for gpu in state.gpus] == [(1, "NVIDIA GB10", "12.1", 0)]
    assert "GPU 0" in str(state.problem)


@pytest.mark.parametrize("cards", [(), ("NVIDIA GB10",), ("lost", "NVIDIA L4"), ("NVIDIA L4", "NVIDIA L4")], ids=str)
def test_memory_in_use_is_that_of_all_gpus_or_unknown(monkeypatch: pytest.MonkeyPatch, cards: tuple[str, ...]) -> None:
    driver = Driver(monkeypatch, *cards)
    assert machine.gpu_memory_used() is None, "this driver does not tell"
    assert driver.shut_down == 1
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(used=1 << 30))
    assert machine.gpu_memory_used() == (len(cards) << 30 if cards and "lost" not in cards else None)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: _raising(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert machine.gpu_memory_used() is None


def test_this_machine_is_described_without_a_path_or_host_name() -> None:
    here = machine.describe()
    assert here.cpu
    assert here.cores >= 1
    assert "/" not in here.system
