"""The report for people and for programs."""

import dataclasses
import functools
import io
import json
import re
import sys
from pathlib import Path

import pytest
import typer.main

from build_config.commands import app
from build_config.system.layout import PACKAGE
from check_gpu import log, report
from check_gpu.__main__ import main, parser
from check_gpu.diagnosis import diagnose
from check_gpu.explanations import EXPLANATIONS
from check_gpu.facts import CudaLibrary, Device, Driver, Facts, Installation, Load, Machine, NeededLibrary
from check_gpu.layers import ranges
from check_gpu.result import NOTHING_TO_FIX, Code
from tests.support import model_logs

DOCUMENT = (PACKAGE.parent / "docs" / "check_gpu.md").read_text(encoding="utf-8")

LINES = (
    "llama_model_load: using device CUDA0 (NVIDIA GeForce RTX 4090) (0000:01:00.0) - 23567 MiB free",
    "load_tensors: layer   0 assigned to device CPU, is_swa = 0",
    "load_tensors: layer   1 assigned to device CUDA0, is_swa = 0",
    "load_tensors: layer   2 assigned to device CUDA0, is_swa = 0",
    "load_tensors: layer   3 assigned to device CUDA0, is_swa = 0",
    "load_tensors: offloaded 3/4 layers to GPU",
    "load_tensors:        CUDA0 model buffer size =     1.50 MiB",
    "load_tensors:   CPU_Mapped model buffer size =     0.50 MiB",
    "llama_kv_cache: layer   0: dev = CPU",
    "llama_kv_cache: layer   1: dev = CUDA0",
    "llama_kv_cache: layer   2: dev = CUDA0",
    "llama_kv_cache:      CUDA0 KV buffer size =     0.25 MiB",
)
FACTS = Facts(
    machine=Machine(system="linux", distribution="debian", card_on_bus=True, variables={"CUDA_VISIBLE_DEVICES": "0"}),
    installation=Installation(
        python="/venv/bin/python",
        python_version="3.12.1",
        package="/venv/site-packages/llama_cpp",
        distribution="llama-cpp-python",
        version="0.3.16",
        libraries=("libggml-cuda.so", "libllama.so"),
        cuda=(CudaLibrary("/venv/lib/libggml-cuda.so", code=("89-real",), needs=("libcublas.so.12",)),),
        needed=(NeededLibrary("libcublas.so.12", path="/usr/lib/libcublas.so.12"),),
    ),
    driver=Driver(
        version="580.65.06", cuda="13.0", devices=(Device(0, "NVIDIA GeForce RTX 4090", "8.9", 24 << 30),), cards=None
    ),
    load=Load(n_gpu_layers=3, model="big.gguf", stage="done", tokens=4, log=LINES, signs=log.read(LINES)),
)
EXPECTED = """\
machine    Linux (debian), an NVIDIA GPU on the bus, CUDA_VISIBLE_DEVICES='0'
python     /venv/bin/python 3.12.1
package    llama-cpp-python 0.3.16 in /venv/site-packages/llama_cpp
CUDA build libggml-cuda.so, CUDA 12, code for 89-real
needs      libcublas.so.12: /usr/lib/libcublas.so.12
driver     580.65.06, supports CUDA up to 13.0
GPU        0: NVIDIA GeForce RTX 4090, compute capability 8.9, 24.0 GiB
model      big.gguf, n_gpu_layers=3: 4 tokens generated

layer      weights     KV cache
0          CPU         CPU
1-2        CUDA0       CUDA0
3          CUDA0       -

memory     CUDA0       model 1.50 MiB, KV 0.25 MiB
           CPU_Mapped  model 0.50 MiB
offloaded  3/4 layers to GPU

layers-left-on-cpu: 1 of 4 layers are on the CPU (0) and slow down all others: n_gpu_layers was 3, \
fewer than all, by choice or because the memory of the GPU is too small for more.
  fix it: Llama(..., n_gpu_layers=-1)  # if that runs out of memory: a smaller quantisation, \
or a smaller n_ctx"""


def test_the_whole_report_and_colours_that_change_nothing_else() -> None:
    assert report.text(FACTS, diagnose(FACTS)) == EXPECTED
    text = report.text(FACTS, diagnose(FACTS), colours=True)
    assert "\033[31mlayers-left-on-cpu\033[0m" in text
    assert re.sub(r"\033\[(31|1|0)m", "", text) == EXPECTED


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_are_for_terminals_that_want_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, coloured: bool
) -> None:
    (tmp_path / "a.log").write_text("\n".join(LINES), encoding="utf-8")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    assert main(["--log", str(tmp_path / "a.log")]) == 1
    assert ("\033[31m" in screen.getvalue()) is coloured
    assert "1 of 4 layers are on the CPU" in screen.getvalue()


def test_the_status_says_whether_there_is_something_to_fix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = {"device CPU": "device CUDA0", "dev = CPU": "dev = CUDA0", "offloaded 3/4": "offloaded 4/4"}
    healthy = [functools.reduce(lambda line, change: line.replace(*change), moved.items(), line) for line in LINES]
    (tmp_path / "a.log").write_text("\n".join(healthy), encoding="utf-8")
    assert main(["--log", str(tmp_path / "a.log"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["diagnosis"]["code"] == "card-used"


def test_a_simulated_device_is_not_listed_as_a_gpu() -> None:
    seen = Facts(machine=FACTS.machine, driver=Driver(cuda="13.0", devices=(Device(0, "SIMULATED device", "8.9", 1),)))
    rows = report.text(seen, diagnose(FACTS)).splitlines()
    assert "simulated  0: SIMULATED device, compute capability 8.9, 0.0 GiB" in rows
    assert not any(row.startswith("GPU ") for row in rows)


def test_a_model_that_embeds_has_no_tokens_to_count() -> None:
    lines = model_logs.read("bert", "gpu")
    load = Load(n_gpu_layers=-1, model="b.gguf", stage="done", embedding=64, log=lines, signs=log.read(lines))
    seen = dataclasses.replace(FACTS, load=load)
    text = report.text(seen, diagnose(seen))
    assert "b.gguf, n_gpu_layers=-1: embedding of 64 values" in text
    assert "0-2        CUDA0       -" in text


def test_a_recurrent_state_is_named_in_the_table() -> None:
    lines = model_logs.read("mamba", "gpu")
    load = Load(n_gpu_layers=-1, model="m.gguf", stage="done", tokens=4, log=lines, signs=log.read(lines))
    seen = dataclasses.replace(FACTS, load=load)
    assert "layer      weights     recurrent state\n0-1        CUDA0       CUDA0" in report.text(seen, diagnose(seen))


def test_a_load_that_stopped_early_shows_the_planned_placement() -> None:
    assert FACTS.load is not None
    seen = dataclasses.replace(FACTS, load=dataclasses.replace(FACTS.load, stage="load", error="ValueError: no"))
    text = report.text(seen, diagnose(seen))
    assert "layer      planned     KV cache\n" in text
    assert "stopped at stage 'load'\n           ValueError: no\n" in text


def test_a_machine_without_anything_is_reported_too() -> None:
    seen = Facts(
        machine=Machine(system="win32", wsl=False, container=None),
        installation=Installation(python="python"),
        driver=Driver(problem="Could not find module 'nvcuda.dll'"),
    )
    text = report.text(seen, diagnose(seen))
    assert text.startswith("machine    Windows\n")
    assert "driver     none: Could not find module 'nvcuda.dll'" in text
    assert "not-installed:" in text


def test_the_document_is_for_programs() -> None:
    data = json.loads(json.dumps(report.document(FACTS, diagnose(FACTS))))
    assert data["schema"] == 1
    assert data["diagnosis"]["code"] == "layers-left-on-cpu"
    assert data["diagnosis"]["nothing_to_mend"] is False
    assert data["load"]["placements"]["offloaded"] == [3, 4]
    assert data["load"]["placements"]["layers"][0] == {"layer": 0, "weights": "CPU", "kv_cache": "CPU"}
    assert data["load"]["log"] == [*LINES]
    assert data["installation"]["cuda"][0]["code"] == ["89-real"]
    assert data["driver"]["devices"][0]["memory"] == 24 << 30


def test_the_document_holds_the_end_of_a_long_log() -> None:
    lines = tuple(map(str, range(2 * report.LOG_LINES)))
    load = Load(n_gpu_layers=None, model="a.log", stage="log", log=lines, signs=log.read(lines))
    seen = Facts(machine=FACTS.machine, load=load)
    assert report.document(seen, diagnose(seen))["load"]["log"] == lines[-report.LOG_LINES :]


def test_ranges() -> None:
    assert ranges([3, 0, 1, 2, 7]) == "0-3, 7"
    assert ranges([]) == ""


def test_the_document_lists_every_diagnosis_in_order_with_its_remedy() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|$", DOCUMENT, re.MULTILINE)
    assert rows == [(code.value, each.meaning, each.fix) for code, each in EXPLANATIONS.items()]
    assert [*EXPLANATIONS] == [*Code]
    for code, each in EXPLANATIONS.items():
        assert each.fix.startswith("nothing to fix") is (code in NOTHING_TO_FIX), code


def test_the_document_begins_with_the_ten_sentences_that_people_search_for() -> None:
    """Each with its cause and fix, from the table of the diagnoses."""
    title, _, rest = DOCUMENT.partition("\n\n")
    head, rule, *rows = rest.partition("\n\n")[0].splitlines()
    assert (title, rule) == ("# Is the GPU used?", "|---|---|---|")
    assert head == "| what people see | cause | fix |"
    table = [(said, code, each) for code, each in EXPLANATIONS.items() for said in each.searched]
    assert rows == [f"| `{said}` | {each.meaning} (`{code.value}`) | {each.fix} |" for said, code, each in table]
    assert len(rows) == 10


@pytest.mark.parametrize(
    ("said", "code"), [(said, code) for code, each in EXPLANATIONS.items() for said in each.searched]
)
def test_each_of_the_ten_sentences_has_the_diagnosis_that_the_document_names(said: str, code: Code) -> None:
    if said == "llama-cpp-python not using GPU":  # nothing prints this: it is what such a build looks like
        said = "load_tensors:   CPU_Mapped model buffer size =  4685.30 MiB\nCPU : SSE3 = 1 | AVX = 1 |"
    lines = tuple(said.splitlines())
    load = Load(n_gpu_layers=None, model="a.log", stage="log", log=lines, signs=log.read(lines))
    assert diagnose(Facts(machine=FACTS.machine, load=load)).code is code


def test_both_entry_points_have_the_options_of_the_document_and_the_same_defaults() -> None:
    documented = set(re.findall(r"^\| `(--[a-z-]+)", DOCUMENT, re.MULTILINE))
    command = typer.main.get_group(app).commands["check_gpu"]
    alone = {name for action in parser()._actions for name in action.option_strings if name.startswith("--")}
    assert alone - {"--help"} == documented
    assert {name for option in command.params for name in option.opts} - {"--help"} == documented | {"--make-file"}
    defaults = vars(parser().parse_args([]))
    for option in command.params:
        if option.name in {"n_gpu_layers", "n_ctx", "timeout", "json", "log", "model"}:
            assert option.default == defaults[option.name], option.name
