"""The rehearsal on a small workflow in a repository of its own: what reaches a job, and what does not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT
from ci.rehearse_workflow import WORKFLOW, Rehearsal
from ci.workflow_expressions import ExpressionError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

ROOT = str(CANONICAL_WORK_ROOT)
SMALL = """\
name: Small
on: {workflow_dispatch: {}}
jobs:
  plan:
    runs-on: none
    outputs: {units: "${{ steps.list.outputs.units }}"}
    steps:
      - uses: actions/checkout@0
      - id: list
        env: {WANTED: "${{ inputs.arch }}"}
        run: |
          test "$HOME" != /root -a -z "$STOWAWAY" -a "$(hostname)" = runner
          echo "units=[{\\"id\\": \\"core\\"}, {\\"id\\": \\"$WANTED\\"}]" >> "$GITHUB_OUTPUT"
  unit:
    needs: plan
    runs-on: none
    strategy: {matrix: {include: "${{ fromJSON(needs.plan.outputs.units) }}"}}
    steps:
      - uses: actions/checkout@0
      - uses: actions/cache@0
        with: {path: ROOT/cache, key: "objects-${{ matrix.id }}-2", restore-keys: "objects-"}
      - env: {ID: "${{ matrix.id }}"}
        run: |
          test ! -e ROOT/store && mkdir -p ROOT/store ROOT/cache units/$ID
          cat ROOT/cache/* > units/$ID/from-cache || true
          echo "made by $ID" | tee units/$ID/file > ROOT/cache/$ID
          chmod +x units/$ID/file
      - uses: actions/upload-artifact@0
        with: {name: "unit-${{ matrix.id }}", path: units, if-no-files-found: error}
  card:
    needs: unit
    if: needs.plan.outputs.cards != null
    runs-on: none
    steps: [{run: exit 1}]
  wheel:
    needs: [unit, card]
    if: ${{ !cancelled() && needs.unit.result == 'success' && needs.card.result != 'failure' }}
    runs-on: none
    steps:
      - uses: actions/checkout@0
      - uses: actions/download-artifact@0
        with: {pattern: unit-*, path: units, merge-multiple: true}
      - run: mkdir -p bin wheelhouse && printf '#!/bin/sh\\ncat units/*/file' > bin/join && chmod +x bin/join
      - run: echo "$PWD/bin" >> "$GITHUB_PATH"
      - run: test ! -x units/core/file && join > wheelhouse/one.whl && touch wheelhouse/index.html
      - uses: actions/attest-build-provenance@0
      - uses: actions/upload-artifact@0
        with: {name: wheelhouse, path: "wheelhouse/*.whl\\nwheelhouse/index.html"}
  after:
    needs: wheel
    runs-on: none
    steps: [{uses: actions/checkout@0}, {run: LAST}]
""".replace("ROOT", ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "checkout" / WORKFLOW).parent.mkdir(parents=True)
    return tmp_path / "checkout"


def rehearse(checkout: Path, text: str, *, seed: Path | None = None) -> Rehearsal:
    (checkout / WORKFLOW).write_text(text, encoding="utf-8")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x"),
    ):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    made = Rehearsal(checkout, checkout.parent / "out", Console(), inputs={"arch": "sm89"}, seed=seed)
    made.run()
    return made


def results(made: Rehearsal) -> dict[str, str]:
    return {outcome.name or outcome.job: outcome.result for outcome in made.outcomes}


def test_jobs_run_in_order_and_hand_over_what_the_file_says(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAWAY", "of this machine")
    seed = tmp_path / "seed"
    (seed / "cache").mkdir(parents=True)
    (seed / "cache" / "old").write_text("an earlier run", encoding="utf-8")
    made = rehearse(checkout, SMALL.replace("LAST", "exit 0"), seed=seed)
    assert results(made) == {
        "plan": "success",
        "core": "success",
        "sm89": "success",
        "card": "skipped",
        "wheel": "success",
        "after": "success",
    }
    wheelhouse = made.artifacts / "wheelhouse"
    assert (wheelhouse / "one.whl").read_text(encoding="utf-8") == "made by core\nmade by sm89\n"
    assert (wheelhouse / "index.html").exists()
    caches = [(made.artifacts / f"unit-{name}" / name / "from-cache").read_text("utf-8") for name in ("core", "sm89")]
    assert caches == ["an earlier run", "made by core\nan earlier run"]
    assert [outcome.remarks for outcome in made.outcomes if outcome.name == "wheel"] == [
        ("not run here: actions/attest-build-provenance",)
    ]
    assert not list((checkout.parent / "out" / "jobs").iterdir())


def test_a_step_that_fails_fails_its_job_and_those_that_need_it_are_skipped(checkout: Path) -> None:
    made = rehearse(checkout, SMALL.replace("test ! -e", "false &&").replace("LAST", "exit 0"))
    assert results(made) == {
        "plan": "success",
        "core": "failure",
        "sm89": "failure",
        "card": "skipped",
        "wheel": "skipped",
        "after": "skipped",
    }
    log = (checkout.parent / "out" / "jobs" / "unit-0" / "temp" / "script.sh").read_text(encoding="utf-8")
    assert "false &&" in log


def test_an_action_that_is_not_known_here_fails_its_job(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = rehearse(checkout, SMALL.replace("actions/checkout@0", "actions/labeler@0", 1))
    assert set(results(made).values()) == {"failure", "skipped"}
    assert "actions/labeler is not known here" in capsys.readouterr().out


def test_an_expression_that_is_not_known_here_stops_the_rehearsal(checkout: Path) -> None:
    with pytest.raises(ExpressionError, match="secrets is not known here"):
        rehearse(checkout, SMALL.replace("inputs.arch", "secrets.arch"))
