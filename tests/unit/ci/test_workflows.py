"""The files of both CI services: valid by their schemas, pinned, of least rights, and without logic of their own."""

from __future__ import annotations

import ast
import json
import re
from importlib import resources
from typing import Any

import jsonschema
import pytest
import yaml

from build_config.system.layout import PACKAGE
from build_config.tasks import ci_matrix

pytestmark = pytest.mark.unit

CHECKOUT = PACKAGE.parent
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))
GITLAB = (CHECKOUT / "ci" / "gitlab-ci.yml", CHECKOUT / "ci" / "gitlab-jobs.yml")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
EXPRESSION = "${{"
PLAN = ci_matrix.plan(ci_matrix.read(CHECKOUT / "ci" / "matrix.toml"), ci_matrix.read_card_runners("8.9=rtx"))


def load(name: str) -> dict[str, Any]:
    """A file of ours. YAML 1.1 reads the key ``on`` as true; GitHub does not."""
    data: dict[Any, Any] = yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in data.items()}


def jobs(workflow: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(workflow)["jobs"]
    return found


def steps(workflow: str) -> list[dict[str, Any]]:
    return [step for job in jobs(workflow).values() for step in job["steps"]]


def errors(data: object, schema: str) -> list[str]:
    text = resources.files("check_jsonschema.builtin_schemas.vendor").joinpath(schema).read_text(encoding="utf-8")
    validator = jsonschema.validators.validator_for(json.loads(text))
    return [f"{error.json_path}: {error.message}" for error in validator(json.loads(text)).iter_errors(data)]


every = pytest.mark.parametrize("workflow", [path.relative_to(CHECKOUT).as_posix() for path in WORKFLOWS])


@every
def test_a_workflow_is_one_by_its_schema(workflow: str) -> None:
    data = load(workflow)
    assert errors(data, "github-workflows.json") == []
    data["jobs"]["more"] = {"runs-on": "ubuntu-24.04", "stepz": []}
    assert errors(data, "github-workflows.json"), "the schema does not find a wrong word"


@every
def test_every_action_is_pinned_by_commit_and_says_which_release_that_is(workflow: str) -> None:
    text = (CHECKOUT / workflow).read_text(encoding="utf-8")
    lines = re.findall(r"uses: (.+)", text)
    assert len(lines) == len([step for step in steps(workflow) if "uses" in step]) > 1
    for line in lines:
        assert re.fullmatch(rf"{PINNED.pattern} # v\d+\.\d+\.\d+", line), line


def test_one_action_is_the_same_commit_everywhere() -> None:
    used = {step["uses"] for path in WORKFLOWS for step in steps(str(path)) if "uses" in step}
    assert len({action.partition("@")[0] for action in used}) == len(used)


@every
def test_nothing_from_outside_becomes_part_of_a_script(workflow: str) -> None:
    for step in steps(workflow):
        assert EXPRESSION not in step.get("run", ""), step


@every
def test_scripts_call_and_do_not_decide(workflow: str) -> None:
    for step in steps(workflow):
        assert not re.search(r"\b(if|for|while|case)\b|&&|\|\||;|\n.", step.get("run", "").strip()), step


@every
def test_rights_are_named_and_time_is_limited(workflow: str) -> None:
    data = load(workflow)
    assert data["permissions"] in ({}, {"contents": "read"})
    assert data["concurrency"]["group"]
    for name, job in data["jobs"].items():
        assert 5 <= job["timeout-minutes"] <= 120, name
        for step in job["steps"]:
            if "actions/checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False


def test_only_the_jobs_that_need_them_have_further_rights() -> None:
    extra = {
        name: {right for right, level in job["permissions"].items() if level == "write"}
        for name, job in jobs(".github/workflows/wheels.yml").items()
    }
    assert {name: rights for name, rights in extra.items() if rights} == {
        "publish": {"id-token", "attestations"},
        "release": {"contents"},
    }


def test_no_machine_with_a_card_runs_what_strangers_send() -> None:
    triggers = load(".github/workflows/wheels.yml")["on"]
    assert set(triggers) == {"push", "workflow_dispatch"}
    assert triggers["push"] == {"tags": ["v*"]}


def test_what_a_job_takes_from_the_plan_is_in_the_plan() -> None:
    workflow = jobs(".github/workflows/wheels.yml")
    outputs = dict(line.split("=", 1) for line in ci_matrix.github_output(PLAN).splitlines())
    assert set(workflow["plan"]["outputs"]) == set(outputs)
    for job, name in (("unit", "units"), ("wheel", "wheels"), ("card", "cards")):
        taken = set(re.findall(r"\bmatrix\.(\w+)", json.dumps(workflow[job])))
        assert taken
        assert taken <= set(json.loads(outputs[name])[0]), job


def test_an_artifact_that_is_downloaded_was_uploaded_before() -> None:
    workflow = jobs(".github/workflows/wheels.yml")
    uploaded = {
        step["with"]["name"].partition("-")[0]
        for step in steps(".github/workflows/wheels.yml")
        if "upload-artifact" in step.get("uses", "")
    }
    for job in workflow.values():
        for step in job["steps"]:
            if "download-artifact" in step.get("uses", ""):
                wanted = step["with"].get("name") or step["with"]["pattern"]
                assert wanted.partition("-")[0] in uploaded


def test_every_session_and_script_that_a_service_calls_exists() -> None:
    tree = ast.parse((CHECKOUT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    for path in (*WORKFLOWS, *GITLAB):
        text = path.read_text(encoding="utf-8")
        called = re.findall(r"nox -s ((?:[a-z_]+ ?)+)", text)
        assert {word for line in called for word in line.split()} <= sessions, path
        for script in re.findall(r"\bci/\w+\.sh", text):
            assert (CHECKOUT / script).stat().st_mode & 0o111, script


# ---------------------------------------------------------------------------------------------------------- gitlab


@pytest.mark.parametrize("path", GITLAB, ids=lambda path: path.name)
def test_a_file_for_gitlab_is_one_by_its_schema(path: Any) -> None:
    data = load(str(path))
    assert errors(data, "gitlab-ci.json") == []
    data["default"] = {"retrie": 1}
    assert errors(data, "gitlab-ci.json"), "the schema does not find a wrong word"


def test_the_generated_pipeline_with_what_it_extends_is_one_by_gitlabs_schema() -> None:
    generated = ci_matrix.gitlab_pipeline(PLAN)
    templates = load(ci_matrix.GITLAB_JOBS)
    assert errors(generated, "gitlab-ci.json") == []
    del generated["include"]
    whole = {
        name: templates[job["extends"]] | {k: v for k, v in job.items() if k != "extends"}
        for name, job in generated.items()
    }
    assert errors({"stages": templates["stages"]} | whole, "gitlab-ci.json") == []
    for job in whole.values():
        assert job["stage"] in templates["stages"]
        assert len(job.get("needs", ())) <= 50
        used = set(re.findall(r"\$([A-Z]+)\b", json.dumps([job["script"], job["before_script"], job.get("cache")])))
        assert used - {"WORK", "PWD", "PATH"} <= set(job.get("variables", {}))


def test_both_services_run_the_same_commands() -> None:
    def commands(text: str) -> set[str]:
        found = re.findall(r"(?:nox -s (?!matrix|publish).+|ci/validate_on_gpu.+)", text)
        return {line.strip() for line in found if "rehearse" not in line}

    github = (CHECKOUT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    gitlab = (CHECKOUT / ci_matrix.GITLAB_JOBS).read_text(encoding="utf-8")
    assert commands(github) == {line for line in commands(gitlab) if "--gitlab" not in line}
