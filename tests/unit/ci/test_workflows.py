"""The files of both CI services: valid by their schemas, pinned, with minimal rights, and without their own logic."""

import ast
import json
import os
import re
import shlex
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from typer.core import TyperGroup
from typer.exceptions import TyperException

from build_config.commands import app
from build_config.system.layout import PACKAGE
from build_config.tasks import ci_matrix

CHECKOUT = PACKAGE.parent
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
WHEELS = ".github/workflows/wheels.yml"
SETUP = "./.github/actions/setup"
ACTION = f"{SETUP}/action.yml".removeprefix("./")
GITLAB = (CHECKOUT / "ci" / "gitlab-ci.yml", CHECKOUT / "ci" / "gitlab-jobs.yml")
PINNED = r"[\w.-]+/[\w./-]+@[0-9a-f]{40}"
EXPRESSION = "${{"
PLAN = ci_matrix.plan(ci_matrix.read(CHECKOUT / "ci" / "matrix.toml"), ci_matrix.read_gpu_runners("8.9=rtx"))


def load(name: str) -> dict[str, Any]:
    """Read one of our files. YAML 1.1 reads the key ``on`` as true; GitHub does not."""
    data: dict[Any, Any] = yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in data.items()}


def jobs(workflow: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(workflow)["jobs"]
    return found


def steps(file: str) -> list[dict[str, Any]]:
    """All steps of a workflow, or of our action."""
    data = load(file)
    return [step for part in (data["jobs"].values() if "jobs" in data else [data["runs"]]) for step in part["steps"]]


def errors(data: object, schema: str) -> list[str]:
    folder = resources.files("check_jsonschema.builtin_schemas.vendor")
    text = folder.joinpath(f"{schema}.json").read_text(encoding="utf-8")
    validator = jsonschema.validators.validator_for(json.loads(text))
    return [f"{error.json_path}: {error.message}" for error in validator(json.loads(text)).iter_errors(data)]


NAMES = [path.relative_to(CHECKOUT).as_posix() for path in WORKFLOWS]
every_workflow = pytest.mark.parametrize("workflow", NAMES)
every_file = pytest.mark.parametrize("file", [*NAMES, ACTION])


@pytest.mark.parametrize(
    ("file", "schema", "section", "wrong"),
    [
        *((name, "github-workflows", "jobs", {"more": {"runs-on": "ubuntu-24.04", "stepz": []}}) for name in NAMES),
        (ACTION, "github-actions", "runs", {"stepz": []}),
        *((path.relative_to(CHECKOUT).as_posix(), "gitlab-ci", "default", {"retrie": 1}) for path in GITLAB),
    ],
)
def test_a_file_is_valid_by_its_schema(file: str, schema: str, section: str, wrong: dict[str, Any]) -> None:
    data = load(file)
    assert errors(data, schema) == []
    data[section] = {**data.get(section, {}), **wrong}
    assert errors(data, schema), "the schema does not find a wrong word"


@every_file
def test_every_action_is_ours_or_pinned_by_commit_with_its_release(file: str) -> None:
    lines = re.findall(r"uses: (.+)", (CHECKOUT / file).read_text(encoding="utf-8"))
    assert len(lines) == len([step for step in steps(file) if "uses" in step]) > 1
    for line in lines:
        assert line == SETUP or re.fullmatch(rf"{PINNED} # v\d+\.\d+\.\d+", line), line


def test_every_use_of_an_action_has_the_same_commit() -> None:
    used = {step["uses"] for file in (*NAMES, ACTION) for step in steps(file) if "uses" in step}
    assert len({action.partition("@")[0] for action in used}) == len(used)


@every_workflow
def test_our_action_comes_after_the_checkout_and_before_nox(workflow: str) -> None:
    for name, job in jobs(workflow).items():
        called = [step.get("uses", step.get("run", "")).partition("@")[0] for step in job["steps"]]
        if name == "attest":  # runs nothing of the repository
            continue
        assert called[0] == "actions/checkout", name
        before = called[: [*(call.partition(" ")[0] for call in called), "nox"].index("nox")]
        assert before == called or {SETUP, 'ci/bootstrap.sh "$RUNNER_TEMP/nox"'} & set(before), name
        inputs = {given for step in job["steps"] if step.get("uses") == SETUP for given in step.get("with", {})}
        assert inputs <= set(load(ACTION)["inputs"])


@every_file
def test_scripts_contain_no_logic_and_no_expressions(file: str) -> None:
    for step in steps(file):
        assert EXPRESSION not in step.get("run", ""), step
        assert not re.search(r"\b(if|for|while|case)\b|&&|\|\||;|\n.", step.get("run", "").strip()), step


@every_workflow
def test_rights_are_declared_and_time_is_limited(workflow: str) -> None:
    data = load(workflow)
    assert data["permissions"] in ({}, {"contents": "read"})
    assert data["concurrency"]["group"]
    assert all(5 <= job["timeout-minutes"] <= 120 for job in data["jobs"].values())
    checkouts = [step for step in steps(workflow) if "actions/checkout@" in step.get("uses", "")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_only_the_jobs_that_need_them_have_further_rights() -> None:
    rights = {name: {*job["permissions"].items()} for name, job in jobs(WHEELS).items()}
    extra = {name: {right for right, level in each if level == "write"} for name, each in rights.items()}
    assert extra.pop("attest") == {"id-token", "attestations"}
    assert extra.pop("release") == {"contents"}
    assert extra.pop("pages") == {"pages", "id-token"}
    assert not any(extra.values())


def test_the_job_that_signs_runs_nothing_but_two_pinned_actions() -> None:
    """A Python package that was replaced could otherwise sign in the name of this repository."""
    called = [step.get("uses", "a script").partition("@")[0] for step in jobs(WHEELS)["attest"]["steps"]]
    assert called == ["actions/download-artifact", "actions/attest-build-provenance"]


def test_a_release_takes_no_object_from_a_cache() -> None:
    """No lock names the digests of objects, and other runs can write to that cache; downloads are verified."""
    cached = [step["with"] for step in steps(WHEELS) if step.get("uses", "").startswith("actions/cache@")]
    assert [one["lookup-only"] for one in cached] == ["${{ startsWith(github.ref, 'refs/tags/') }}"]
    kept = [step["with"]["path"] for step in steps(ACTION) if step.get("uses", "").startswith("actions/cache@")]
    assert kept == ["${{ inputs.downloads }}"]


def test_no_self_hosted_machine_runs_code_of_outsiders() -> None:
    triggers = load(WHEELS)["on"]
    assert set(triggers) == {"push", "workflow_dispatch"}
    assert triggers["push"] == {"tags": ["v*"]}


def test_the_plan_has_every_value_that_a_job_uses() -> None:
    workflow = jobs(WHEELS)
    outputs = dict(line.split("=", 1) for line in ci_matrix.github_output(PLAN).splitlines())
    assert set(workflow["plan"]["outputs"]) == set(outputs)
    for job, name in (("unit", "units"), ("wheel", "wheels"), ("card", "cards")):
        taken = set(re.findall(r"\bmatrix\.(\w+)", json.dumps(workflow[job])))
        assert taken
        assert taken <= set(json.loads(outputs[name])[0]), job


def test_an_artifact_that_is_downloaded_is_uploaded() -> None:
    uploaded, downloaded = (
        {
            (step["with"].get("name") or step["with"]["pattern"]).partition("-")[0]
            for step in steps(WHEELS)
            if f"{verb}-artifact" in step.get("uses", "")
        }
        for verb in ("upload", "download")
    )
    assert set() < downloaded <= uploaded


def test_a_variable_of_a_script_is_the_value_of_that_name() -> None:
    """The rehearsal relies on the names."""
    for job in ("plan", "unit", "wheel", "publish"):
        values = "inputs" if job == "plan" else "matrix"
        for step in jobs(WHEELS)[job]["steps"]:
            variables = {name: value for name, value in step.get("env", {}).items() if name != "CARDS"}
            assert variables == {name: f"${{{{ {values}.{name.lower()} }}}}" for name in variables}


SESSIONS = {
    next(iter(re.findall(r"name='([^']+)'", ast.unparse(node))), node.name): re.findall(
        r"step\(session, '(\w+)'", ast.unparse(node)
    )
    for node in ast.parse((CHECKOUT / "noxfile.py").read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.decorator_list
}
"""Each session, and the step that it runs, if it runs one."""
VALUES = {"ARCH": "86,89", "CUDA": "13.0", "UNIT": "sm86", "CARDS": "8.9=rtx"}


@pytest.mark.parametrize("path", [*WORKFLOWS, *GITLAB, CHECKOUT / ".ci" / "run"], ids=lambda path: path.name)
def test_every_call_names_an_existing_session_and_existing_options(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("collected", "units", "wheelhouse"):  # options name them
        (tmp_path / folder).mkdir()
    text = path.read_text(encoding="utf-8")
    calls = re.findall(r"^[^#\n]*nox -s ([^>\n]+)", text, re.MULTILINE)
    assert calls
    for call in calls:
        sessions, _, options = Template(call).safe_substitute(VALUES).partition(" -- ")
        for step in (step for session in sessions.split() for step in SESSIONS[session]):
            read_options(step, shlex.split(options))
            with pytest.raises(TyperException):
                read_options(step, [*shlex.split(options), "--no-such-option"])
    for script in re.findall(r"\bci/\w+\.sh", text):
        assert os.access(CHECKOUT / script, os.X_OK), script


def read_options(step: str, options: list[str]) -> None:
    """Parse a step's options with the project's command line, and run nothing."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    group.commands[step].make_context(step, options)


# ---------------------------------------------------------------------------------------------------------- gitlab


def test_the_generated_pipeline_with_its_templates_is_valid_by_gitlabs_schema() -> None:
    generated = ci_matrix.gitlab_pipeline(PLAN)
    templates = load(ci_matrix.GITLAB_JOBS)
    assert errors(generated, "gitlab-ci") == []
    del generated["include"]
    whole = {
        name: templates[job["extends"]] | {k: v for k, v in job.items() if k != "extends"}
        for name, job in generated.items()
    }
    assert errors({"stages": templates["stages"]} | whole, "gitlab-ci") == []
    for job in whole.values():
        assert job["stage"] in templates["stages"]
        assert len(job.get("needs", ())) <= 50
        used = set(re.findall(r"\$([A-Z]+)\b", json.dumps([job["script"], job["before_script"], job.get("cache")])))
        assert used - {"WORK", "PWD", "PATH"} <= set(job.get("variables", {}))


def test_both_services_run_the_same_commands() -> None:
    def commands(text: str) -> set[str]:
        found = re.findall(r"(?:nox -s (?!matrix|publish).+|ci/validate_on_gpu.+)", text)
        return {line.strip() for line in found if "rehearse" not in line}

    github = (CHECKOUT / WHEELS).read_text(encoding="utf-8")
    gitlab = (CHECKOUT / ci_matrix.GITLAB_JOBS).read_text(encoding="utf-8")
    assert commands(github) == {line for line in commands(gitlab) if "--gitlab" not in line}


def test_both_services_continue_the_index_of_their_site() -> None:
    """A site is replaced as a whole, so it begins with what it has, and one run at a time does this."""
    job, gitlab = jobs(WHEELS)["pages"], load(ci_matrix.GITLAB_JOBS)[".publish"]
    assert (job["concurrency"]["group"], gitlab["resource_group"]) == ("pages", "pages")
    (command,) = (step["run"] for step in job["steps"] if "--from" in step.get("run", ""))
    (other,) = (line for line in gitlab["script"] if "--from" in line)
    assert command.split()[-4:-2] == ["--from", '"$SITE/whl"']
    assert other.split()[-4:-2] == ["--from", '"$CI_PAGES_URL/whl"']
    assert "public" in gitlab["artifacts"]["paths"]
