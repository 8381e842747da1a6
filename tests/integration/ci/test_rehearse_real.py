"""The rehearsal of the real workflow, in a small repository whose nox only records its calls."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psutil
import pytest

from build_config.errors import CommandError, InterruptedRunError, SettingsError
from build_config.system.console import Console
from build_config.system.layout import CANONICAL_WORK_ROOT, PACKAGE
from build_config.tasks import ci_matrix
from ci.rehearse import WORKFLOW, Rehearsal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

NOX = f"""#!/bin/bash
set -eu
root={CANONICAL_WORK_ROOT}
echo "$PWD: nox $*" >> CALLS
echo $(hostname) ${{STOWAWAY-clean}} $(ls $root) $(ls $root/cache) >> CALLS.seen
touch $root/a-rehearsal-was-here
case $2 in
  INSTEAD
  matrix) cat PLAN >> "${{!#}}" ;;
  units) mkdir -p "units/$UNIT"; echo "$UNIT" > "units/$UNIT/unit.json"; echo "$UNIT" > "$root/cache/$UNIT" ;;
  build_cuda_wheel) cat units/*/unit.json > wheelhouse/llama.whl ;;
  publish) cp collected/*/llama.whl wheelhouse/published.whl ;;
esac
"""
UNITS = "units -- --arch 86,89 --cuda 13.0 --only {} --launcher sccache --export units"
CALLS = (
    "matrix -- --arch 86,89 --cuda  --cards  --github-output {}/plan.txt",
    *(UNITS.format(unit) for unit in ("core", "sm86", "sm89")),
    "build_cuda_wheel -- --arch 86,89 --cuda 13.0 --units units --require-units",
    "publish -- collected",
)


def rehearsal(folder: Path, console: Console | None = None, *, instead: str = "") -> Rehearsal:
    checkout, plan = folder / "checkout", folder / "plan"
    listed = ci_matrix.read(PACKAGE.parent / "ci" / "matrix.toml")
    plan.write_text(ci_matrix.github_output(ci_matrix.plan(ci_matrix.select(listed, arch="86,89"))), encoding="utf-8")
    nox = NOX.replace("CALLS", str(folder / "calls")).replace("PLAN", str(plan)).replace("INSTEAD", instead)
    for name, text in {
        WORKFLOW: (PACKAGE.parent / WORKFLOW).read_text(encoding="utf-8"),
        "ci/bootstrap.sh": f"#!/bin/sh\nmkdir -p $1/bin && cp {folder}/nox $1/bin\n",
        "ci/allow_namespaces.sh": "#!/bin/sh\n",
        "wheelhouse/README.md": "",
        "../nox": nox,
    }.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, encoding="utf-8")
        (checkout / name).chmod(0o755)
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "--quiet"), ("add", "."), (*identity, "commit", "--quiet", "-m", "x")):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)
    return Rehearsal(checkout=checkout, out=folder / "out", console=console or Console())


def called(folder: Path) -> list[tuple[str, ...]]:
    """The calls of nox, each with its folder."""
    lines = (folder / "calls").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(": nox -s ", 1)) for line in lines]


def test_jobs_run_their_scripts_in_order_each_on_its_own_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAWAY", "of this machine")
    (tmp_path / "seed" / "cache").mkdir(parents=True)
    (tmp_path / "seed" / "cache" / "old").write_text("seed", encoding="utf-8")
    made = rehearsal(tmp_path)
    made.run(arch="86,89", cuda="", seed=tmp_path / "seed")
    folders, calls = zip(*called(tmp_path), strict=True)
    assert calls == tuple(call.format(made.out) for call in CALLS)
    assert len(set(folders)) == len(CALLS), "two jobs shared a clone"
    seen = (tmp_path / "calls.seen").read_text(encoding="utf-8").splitlines()
    kept = ("old", "old", "core old", "core old sm86", "core old sm86 sm89", "core old sm86 sm89")
    assert seen == [f"runner clean cache downloads {each}" for each in kept]
    assert (made.out / "artifacts" / "publish" / "published.whl").read_text("utf-8") == "core\nsm86\nsm89\n"
    assert not list((made.out / "jobs").iterdir())
    assert not (CANONICAL_WORK_ROOT / "a-rehearsal-was-here").exists()
    with pytest.raises(SettingsError, match="is not empty"):
        made.run(arch="86,89", cuda="", seed=None)


def test_the_first_failure_stops_the_rehearsal_and_names_the_script(tmp_path: Path) -> None:
    made = rehearsal(tmp_path, instead="units) echo on fire; exit 3 ;;")
    with pytest.raises(CommandError, match=r"^unit-\S+-core: nox -s units .+ status 3: on fire") as caught:
        made.run(arch="86,89", cuda="", seed=None)
    assert [call for _, call in called(tmp_path)] == [call.format(made.out) for call in CALLS[:2]]
    assert caught.value.log is not None
    assert "on fire" in caught.value.log.read_text(encoding="utf-8")


def test_an_interruption_leaves_no_process_and_does_not_change_the_work_root(tmp_path: Path) -> None:
    class Interrupted(Console):
        def note(self, text: str) -> None:
            if text == "| hanging":
                raise KeyboardInterrupt

    made = rehearsal(tmp_path, Interrupted(), instead="units) echo hanging; sleep 600 ;;")
    with pytest.raises(InterruptedRunError):
        made.run(arch="86,89", cuda="", seed=None)
    assert not [one for one in psutil.process_iter(["cwd"]) if str(made.out) in (one.info["cwd"] or "")]
    assert not (CANONICAL_WORK_ROOT / "a-rehearsal-was-here").exists()
