"""The folder for the other machine: the right wheel, complete, and scripts that its older Python understands."""

from __future__ import annotations

import ast
import copy
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from build_config.errors import LockError, SettingsError
from build_config.formats import build_facts
from build_config.model import GpuDevice, Machine
from build_config.steps import locks
from build_config.steps.validation import probe_runs, scenarios
from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.gpu_kit import contents, run
from build_config.testbed import simulated_device
from build_config.testbed.model_families import FAMILIES
from tests.support import factories, wheels

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.unit


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    layout = Layout(checkout=tmp_path / "checkout", work_root=tmp_path / "none")
    layout.wheelhouse.mkdir(parents=True)
    return layout


def add(layout: Layout, *archs: str, name: str, requires: Sequence[str] = ()) -> Path:
    """A wheel with one shard for each architecture."""
    members = wheels.contents({})
    members[build_facts.MEMBER] = build_facts.text(factories.build_facts(*archs)).encode()
    metadata = f"{wheels.DIST_INFO}/METADATA"
    members[metadata] = members[metadata].rstrip() + "".join(f"\nRequires-Dist: {one}" for one in requires).encode()
    return wheels.write(layout.wheelhouse, members, name).path


def test_the_wheel_of_an_architecture_has_exactly_its_shards(layout: Layout) -> None:
    both = add(layout, "86", "89", name=wheels.wheel_name("manylinux_2_28_x86_64"))
    one = add(layout, "89", name=wheels.wheel_name("manylinux_2_31_x86_64"))
    assert contents.choose(None, "89", layout) == one
    assert contents.choose(None, "89,86", layout) == both
    assert contents.choose(both, None, layout) == both


def test_without_such_a_wheel_the_command_that_builds_it_is_named(layout: Layout) -> None:
    add(layout, "89", name="")
    with pytest.raises(SettingsError) as refused:
        contents.choose(None, "90", layout)
    assert refused.value.message == "the wheelhouse contains no wheel of --arch 90"
    assert refused.value.remedy == "nox -s build_cuda_wheel -- --arch 90"


def test_a_folder_with_other_files_is_left_alone(layout: Layout, tmp_path: Path) -> None:
    add(layout, "89", name="")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(SettingsError, match="not empty and not a GPU kit"):
        contents.make(tmp_path / "out", layout, Console(terminal=False))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_requirement_that_the_lock_lacks_is_named(layout: Layout) -> None:
    complete = ("typing-extensions>=4.5.0", "numpy>=1.20", "jinja2>=2.11", "pytest; extra == 'test'")
    unknown = add(layout, "89", name="", requires=(*complete, "einops>=1"))
    with pytest.raises(LockError, match=r"requires einops>=1, and gpu-kit.txt has nothing of that name"):
        contents.provide_dependencies(unknown, layout, Console(terminal=False))
    newer = add(layout, "89", name="", requires=("jinja2>=99",))
    with pytest.raises(LockError, match=r"requires jinja2>=99, and gpu-kit.txt has 3"):
        contents.provide_dependencies(newer, layout, Console(terminal=False))


def test_the_lock_has_one_version_for_every_python() -> None:
    pins = list(locks.read_pins(locks.contents(PACKAGE / "data" / "locks"), contents.LOCK))
    assert locks.REQUIREMENTS["gpu-kit"].python == run.OLDEST_PYTHON
    names = [pin.name for pin in pins]
    assert sorted(set(names)) == sorted(names)
    assert {"jinja2", "markupsafe", "cuda-pathfinder", "diskcache", "typing-extensions"} <= set(names)
    assert not [pin for pin in pins if pin.requirement.marker is not None]


def test_the_runs_are_those_of_a_machine_with_a_gpu() -> None:
    *steps, others = contents.steps(factories.build_facts("89", "90"))
    assert [step["scenarios"] for step in steps] == [
        *(["as it is"], ["planted library"], ["hidden GPUs"], ["n_gpu_layers=0"], ["n_gpu_layers=1"])
    ]
    layers = [scenarios.ALL, scenarios.ALL, scenarios.ALL, 0, 1]
    assert [step["options"] for step in steps] == [{"n_gpu_layers": count} for count in layers]
    assert all(step["models"] == [("generate", "tiny-llama.gguf")] for step in steps)
    assert steps[2]["changes"] == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert [step["planted"] for step in steps] == [False, True, False, False, False]
    tasks = {f"tiny-{family.architecture}.gguf": "embed" if family.embeds else "generate" for family in FAMILIES[1:]}
    assert {model: task for task, model in others["models"]} == tasks, "the other families share a process"
    assert others["scenarios"] == [f"{family.architecture} model" for family in FAMILIES[1:]]
    assert {model for step in (*steps, others) for _, model in step["models"]} <= contents.FAMILIES.keys()


def test_a_machine_with_another_gpu_has_the_same_runs() -> None:
    """The kit is made before anybody knows the machine; the judgement then looks for the scenarios of that machine."""
    facts = factories.build_facts("89")
    gpus = tuple(
        GpuDevice(index=at, name="a GPU", capability=each, memory=8 << 30) for at, each in enumerate(("7.5", "8.9"))
    )
    machine = Machine(system="", cpu="", cores=1, glibc="", driver=None, gpus=gpus)
    there = probe_runs.group(scenarios.on_this_machine(machine, facts))
    assert there[0][0].expected.left_out == ("7.5",)
    assert [[one.name for one in run] for run in there] == [step["scenarios"] for step in contents.steps(facts)]


@pytest.mark.parametrize("name", contents.SCRIPTS)
def test_scripts_are_in_the_grammar_of_the_oldest_python(name: str) -> None:
    source = Path(contents.SCRIPTS[name].__file__ or "").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=run.OLDEST_PYTHON)
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= {*sys.stdlib_module_names, "numpy", "llama_cpp"}


def test_other_scripts_have_other_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents.scripts()
    assert before.keys() == {*contents.SCRIPTS, "check_gpu.pyz"}
    assert contents.scripts() == before
    monkeypatch.setitem(contents.SCRIPTS, "scripts/probe.py", simulated_device)
    assert [name for name, digest in contents.scripts().items() if before[name] != digest] == ["scripts/probe.py"]


# --------------------------------------------------------------------------------------------- on the other machine


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kit that ``run`` believes to be its own; without wheels."""
    folder = tmp_path / "kit"
    folder.mkdir()
    (folder / "run.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(run, "HERE", folder)
    monkeypatch.setattr(run, "ROOM", {"quick": 0, "full": 0})
    return folder


def describe(folder: Path, *, wheel: str, files: dict[str, str] | None = None) -> None:
    kit = {
        "schema": 1,
        "project": "0.1.0",
        "wheel": {"name": wheel, "sha256": "0" * 64},
        "scripts": {},
        "bench": {"models": {"quick": {}}},
        "files": files or {},
    }
    (folder / "kit.json").write_text(json.dumps(kit), encoding="utf-8")


@pytest.mark.parametrize(
    ("wheel", "files", "why"),
    [
        ("a-1-py3-none-manylinux_9_99_x86_64.whl", {}, "the wheel needs glibc 9.99, this machine has "),
        ("a-1-py3-none-manylinux_2_17_riscv64.whl", {}, "the wheel is for riscv64, this machine is "),
        ("a-1-py3-none-manylinux_2_17_x86_64.whl", {"run.py": "0" * 64}, "run.py is damaged or missing"),
        ("a-1-py3-none-manylinux_2_17_x86_64.whl", {"wheels/a.whl": "0" * 64}, "wheels/a.whl is damaged or missing"),
    ],
)
def test_a_machine_that_cannot_run_the_wheel_is_told_why(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], wheel: str, files: dict[str, str], why: str
) -> None:
    describe(folder, wheel=wheel, files=files)
    assert run.main(["--out", str(tmp_path / "report"), "--quick"]) == 2
    assert f"cannot try the wheel: {why}" in capsys.readouterr().out
    assert not (tmp_path / "report").exists()


def test_too_small_a_disk_is_told_before_anything_is_written(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "ROOM", {"quick": 1 << 60})
    describe(folder, wheel="a-1-py3-none-manylinux_2_17_x86_64.whl")
    assert run.main(["--out", str(tmp_path / "report"), "--quick"]) == 2
    assert "set TMPDIR to another folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("visible", "shown"), [(None, "1"), ("", "1"), ("3,5", "5"), ("GPU-aa, GPU-bb,GPU-cc", "GPU-bb")]
)
def test_the_speed_is_that_of_the_first_gpu_in_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, shown: str
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    devices = [{"index": index} for index in range(2)]
    assert run.first_gpu({"cuda_status": {"devices": devices, "left_out": devices[:1]}}) == shown


@pytest.mark.parametrize(
    ("status", "results", "failure"),
    [
        (0, [{}, {}], None),
        (1, [{}, {"error": "Traceback\nOSError: no file\n"}], "second: OSError: no file"),
        (-11, [{}], "second: its process ended with status -11: said last"),
        (-11, None, "first: its process ended with status -11: said last"),
        (None, [{}], "second: its process did not end in time: said last"),
        (1, [{}, {}], "its process ended with status 1: said last"),
    ],
)
def test_the_first_scenario_without_an_answer_is_named(
    status: int | None, results: list[dict[str, str]] | None, failure: str | None
) -> None:
    before = copy.deepcopy(results)
    ran = {"scenarios": ["first", "second"], "status": status, "result": results, "output": "said\nsaid last\n"}
    assert run.failure_in(ran) == failure
    assert ran["result"] == before, "nothing is added to the report"
