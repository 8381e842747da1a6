import dataclasses
import json
from pathlib import Path

import pytest

from build_config.errors import ArchitectureError, SettingsError
from build_config.system.layout import PACKAGE
from build_config.tasks import ci_matrix
from build_config.tasks.ci_matrix import GpuRunner, Host, Matrix, WheelEntry

LISTED = ci_matrix.read(PACKAGE.parent / "ci" / "matrix.toml")
ENABLED = {name: dataclasses.replace(host, disabled="") for name, host in LISTED.platforms.items()}
LINUX = Host(runner="ubuntu-24.04", image="python:3.11")


def entry(arch: str, cuda: str = "13.0") -> WheelEntry:
    return WheelEntry(platform="linux-x86_64", cuda=cuda, arch=arch)


def listed(*entries: WheelEntry) -> Matrix:
    return Matrix(platforms={"linux-x86_64": LINUX}, wheels=entries)


def test_each_unit_is_one_job_and_a_wheel_waits_for_its_units() -> None:
    made = ci_matrix.plan(listed(entry("86,89"), entry("89"), entry("89", "12.9")))
    assert [unit.id for unit in made.units] == [
        f"linux-x86_64-{name}"
        for name in ("cuda13.0-core", "cuda13.0-sm86", "cuda13.0-sm89", "cuda12.9-core", "cuda12.9-sm89")
    ]
    units = {wheel.id.removeprefix("linux-x86_64-"): len(wheel.units) for wheel in made.wheels}
    assert units == {"cuda13.0-sm86-sm89": 3, "cuda13.0-sm89": 2, "cuda12.9-sm89": 2}


def test_the_list_of_this_project_gives_a_complete_plan() -> None:
    made = ci_matrix.plan(dataclasses.replace(LISTED, platforms=ENABLED))
    ids = {unit.id for unit in made.units}
    assert len(ids) == len(made.units)
    assert {unit for wheel in made.wheels for unit in wheel.units} == ids
    assert "portable" in {wheel.arch for wheel in made.wheels}
    runners = {"linux-x86_64": "ubuntu-24.04", "win-amd64": "windows-2022"}
    assert {(job.platform, job.runner) for job in (*made.units, *made.wheels)} == set(runners.items())


def test_a_disabled_platform_has_no_jobs_and_its_reason_is_told() -> None:
    """The line that says why is the only switch: without it there are complete jobs for Windows."""
    assert "docs/windows.md" in LISTED.platforms["win-amd64"].disabled
    assert {job.platform for job in ci_matrix.plan(LISTED).wheels} == {"linux-x86_64"}
    with pytest.raises(SettingsError, match=r"win-amd64 is disabled: .*docs/windows\.md"):
        ci_matrix.select(LISTED, platform="win-amd64", arch="89")
    enabled = ci_matrix.select(dataclasses.replace(LISTED, platforms=ENABLED), platform="win-amd64")
    made = ci_matrix.plan(enabled, ci_matrix.read_gpu_runners("8.9=rtx4060"))
    assert {job.platform for job in made.wheels} == {"win-amd64"}
    assert {job.work_root for job in made.units} == {r"C:\llama-cuda-wheels"}
    assert len(made.cards) == len(made.wheels)


def test_gitlab_has_no_jobs_for_a_platform_without_an_image() -> None:
    both = ci_matrix.plan(dataclasses.replace(LISTED, platforms=ENABLED), ci_matrix.read_gpu_runners("8.9=rtx4060"))
    linux = ci_matrix.plan(LISTED, ci_matrix.read_gpu_runners("8.9=rtx4060"))
    assert ci_matrix.gitlab_pipeline(both) == ci_matrix.gitlab_pipeline(linux)


def test_a_shard_is_built_for_the_entry_that_contains_it() -> None:
    made = ci_matrix.plan(listed(entry("89"), entry("portable")))
    arches = {unit.unit: unit.arch for unit in made.units}
    assert arches["core"] == arches["sm89"] == "89"
    assert arches["sm90ptx"] == "portable"


def test_a_wheel_is_validated_on_every_gpu_that_it_has_code_for_and_on_no_other() -> None:
    runners = ci_matrix.read_gpu_runners("8.9=rtx4090 7.5=t4 12.0=rtx5090")
    made = ci_matrix.plan(listed(entry("89"), entry("75"), entry("90")), runners)
    assert [(gpu.wheel.rpartition("-")[2], gpu.label) for gpu in made.cards] == [("sm89", "rtx4090"), ("sm75", "t4")]


@pytest.mark.parametrize("text", ["89=rtx", "8.9", "8.9=", "8.9=a,b", "8.9=$(id)"])
def test_a_text_that_is_not_a_gpu_runner_is_refused(text: str) -> None:
    assert ci_matrix.read_gpu_runners("") == ()
    with pytest.raises(SettingsError, match="is not a GPU runner"):
        ci_matrix.read_gpu_runners(text)


def test_a_selection_is_a_part_of_the_list_or_one_wheel_that_need_not_be_in_it() -> None:
    assert ci_matrix.select(LISTED) == LISTED
    assert ci_matrix.select(LISTED, cuda="13.0").wheels == LISTED.wheels
    assert ci_matrix.select(LISTED, arch="75").wheels == (entry("75"),)
    assert ci_matrix.select(LISTED, arch="75", cuda="12.9").wheels == (entry("75", "12.9"),)
    for wrong in ({"cuda": "9.1"}, {"platform": "amiga"}, {"platform": "amiga", "arch": "89"}):
        with pytest.raises(SettingsError):
            ci_matrix.select(LISTED, **wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (listed(entry("native")), "depends on the machine"),
        (listed(entry("auto")), "depends on the machine"),
        (listed(entry("89", "system")), "not a release"),
        (listed(entry("89"), entry("8.9")), "twice"),
        (listed(dataclasses.replace(entry("89"), platform="win-amd64")), "but no machine"),
        (listed(entry("61")), r"6\.1"),
    ],
)
def test_an_entry_that_cannot_become_a_job_is_refused(wrong: Matrix, said: str) -> None:
    with pytest.raises((SettingsError, ArchitectureError), match=said):
        ci_matrix.plan(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "wheels = [",
        "[platforms]\n[[wheels]]\nplatform = 'linux-x86_64'\ncuda = '13.0'\narch = '89'\nspeed = 1",
        "[platforms]\n[[wheels]]\nplatform = 'amiga'\ncuda = '13.0'\narch = '89'",
        "wheels = []\n[platforms]",
    ],
    ids=["empty", "not TOML", "unknown key", "unknown platform", "no wheel"],
)
def test_a_malformed_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "matrix.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"matrix\.toml"):
        ci_matrix.read(tmp_path / "matrix.toml")


@pytest.mark.parametrize("runners", [(), (GpuRunner(capability="8.9", label="rtx"),)])
def test_outputs_are_one_line_of_json_each(runners: tuple[GpuRunner, ...]) -> None:
    text = ci_matrix.github_output(ci_matrix.plan(listed(entry("89")), runners))
    outputs = {name: json.loads(value) for name, _, value in (line.partition("=") for line in text.splitlines())}
    assert {name: len(jobs) for name, jobs in outputs.items()} == {"units": 2, "wheels": 1, "cards": len(runners)}
    assert outputs["units"][1]["unit"] == "sm89"
    assert ("cards=[]\n" in text) == (not runners), "the workflow compares this list as text"


def test_gitlab_jobs_need_one_another_by_existing_names() -> None:
    made = ci_matrix.plan(LISTED, ci_matrix.read_gpu_runners("8.9=rtx4090"))
    jobs = ci_matrix.gitlab_pipeline(made)
    assert jobs.pop("include") == [{"local": ci_matrix.GITLAB_JOBS}]
    needed = {need if isinstance(need, str) else need["job"] for job in jobs.values() for need in job.get("needs", ())}
    assert needed == set(jobs) - {"publish"}
    assert {job["extends"] for job in jobs.values()} == {".unit", ".wheel", ".card", ".publish"}
