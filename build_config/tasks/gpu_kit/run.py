"""Try the wheel of this folder on the GPU of this machine, without a network, and write a report.

    python run.py --out REPORT [--quick]

Standard library only, and numpy in its processes; Python 3.9 or later. Nothing is installed: the wheels are unpacked
into a temporary folder, which only the processes of this run see. CUDA's libraries are those that this Python has, or
the system's. The report contains what was seen; ``nox -s record_gpu`` judges it on the machine with the wheelhouse.

The status is 0 if every part passed, 1 if one failed, 2 if the wheel cannot be tried here, and 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 9)
INTERRUPTED = 130
PARTS = {
    "check_gpu": "diagnosis of the installation",
    "models": "writing models with random weights",
    "scenarios": "loading a model, with the place of each layer",
    "comparison": "comparing what the GPU computes with the CPU (one or two minutes a GPU)",
    "bench": "speed on the CPU and on the GPU",
    "tests": "tests on the GPU",
}
SHORT, LONG = 300.0, 1200.0
"""Seconds until a process counts as hung."""
KILL_WAIT = 5.0
OUTPUT = 4000
"""Characters of a process's output that are kept in the report; the log has all of it."""
ROOM = {"quick": 600_000_000, "full": 1_400_000_000}
"""Bytes for the temporary folder: the unpacked wheel and the models."""
REPORT = "report.json"


def main(arguments: list[str] | None = None) -> int:
    """Try everything, write the report, and return the status."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--out", type=Path, required=True, help="folder for report.json, report.md and log.txt")
    options.add_argument("--quick", action="store_true", help="measure with a small model")
    chosen = options.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-kit-") as work:
            run = Run(chosen.out.resolve(), Path(work).resolve(), quick=chosen.quick)
            problems = run.prepare()
            for problem in problems:
                say(f"cannot try the wheel: {problem}")
            return 2 if problems else try_all(run)
    except (OSError, json.JSONDecodeError) as error:
        say(f"cannot try the wheel: {error}")
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def try_all(run: Run) -> int:
    """Run every part, write the report, and return the status."""
    try:
        for number, (name, title) in enumerate(PARTS.items(), 1):
            say(f"[{number}/{len(PARTS)}] {name}: {title}")
            run.part(name)
    except KeyboardInterrupt:
        run.report["interrupted"] = True
    run.save()
    written = run.child(HERE / "scripts" / "report_text.py", run.out / REPORT, run.out / "report.md", timeout=SHORT)
    if written["status"] != 0:
        say(f"report.md was not written: {ended(written)}")
    say(f"report: {run.out / REPORT}; judge it with: nox -s record_gpu -- {run.out}")
    if run.report["interrupted"]:
        say("stopped: the report has the parts that were finished, and cannot be recorded")
        return INTERRUPTED
    failed = [name for name, part in run.report["parts"].items() if part["failed"]]
    say(f"FAILED: {', '.join(failed)}" if failed else "all parts passed")
    return 1 if failed or written["status"] != 0 else 0


def say(line: str) -> None:
    """Print a line at once, into a pipe too."""
    print(line, flush=True)


class Run:
    """One run: its folders, and the report so far."""

    def __init__(self, out: Path, work: Path, *, quick: bool) -> None:
        self.out, self.work, self.site, self.models = out, work, work / "site", work / "models"
        self.kit: dict[str, Any] = json.loads((HERE / "kit.json").read_text(encoding="utf-8"))
        self.shape = "quick" if quick else "full"
        inherited = os.environ.get("PYTHONPATH")
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.site), *([inherited] if inherited else [])]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GGML_NO_BACKTRACE": "1",  # no debugger after ggml aborts
        }
        self.evidence: dict[str, Any] = {}
        self.report: dict[str, Any] = {
            "schema": self.kit["schema"],
            "project": self.kit["project"],
            "wheel": self.kit["wheel"],
            "scripts": self.kit["scripts"],
            "started": dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "bench_model": self.kit["bench"]["models"][self.shape],
            "machine": {},
            "parts": {},
            "evidence": self.evidence,
            "interrupted": False,
        }

    def prepare(self) -> list[str]:
        """Unpack the wheels; say what keeps this machine from trying the wheel."""
        problems = [f"{name} is damaged or missing: copy the folder again" for name in damaged(self.kit["files"])]
        needed = re.search(r"manylinux_(\d+)_(\d+)_(\w+)\.whl$", self.kit["wheel"]["name"])
        if needed and platform.machine() != needed[3]:
            problems.append(f"the wheel is for {needed[3]}, this machine is {platform.machine()}")
        library, version = platform.libc_ver()
        here = [int(number) for number in re.findall(r"\d+", version)[:2]] if library == "glibc" else []
        if needed and here < [int(needed[1]), int(needed[2])]:
            found = version if here else "another C library"
            remedy = "make a wheel for older systems: nox -s cibuildwheel"
            problems.append(f"the wheel needs glibc {needed[1]}.{needed[2]}, this machine has {found}; {remedy}")
        if (free := shutil.disk_usage(self.work).free) < ROOM[self.shape]:
            place = f"{ROOM[self.shape] / 1e9:.1f} GB are needed in {self.work.parent}, {free / 1e9:.1f} GB are free"
            problems.append(f"{place}; set TMPDIR to another folder")
        if problems:
            return problems
        self.out.mkdir(parents=True, exist_ok=True)
        self.models.mkdir()
        (self.out / "log.txt").write_text("", encoding="utf-8")
        for wheel in sorted((HERE / "wheels").glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(self.site)
        described = self.work / "surroundings.json"
        ran = self.child(HERE / "scripts" / "surroundings.py", described, timeout=SHORT, written=described)
        if ran["result"] is None:
            remedy = "install it there (pip install numpy), or use the Python that has PyTorch"
            return [f"numpy cannot be imported by {sys.executable}, {ended(ran)}; {remedy}"]
        self.report["machine"] = ran["result"]
        return []

    def part(self, name: str) -> None:
        """Run a part and note its result. An error of any kind fails this part only."""
        start = time.monotonic()
        try:
            failed = getattr(self, f"part_{name}")()
        except Exception:  # noqa: BLE001  # the other parts are still worth running
            failed = traceback.format_exc().strip().splitlines()[-1]
            self.log(traceback.format_exc())
        seconds = round(time.monotonic() - start, 3)
        self.report["parts"][name] = {"failed": failed, "seconds": seconds}
        say(f"      {'FAILED: ' + failed if failed else 'passed'} ({seconds:.0f} s)")
        self.save()

    def part_check_gpu(self) -> str | None:
        """Let check_gpu examine this Python, with the wheel that this run put in front of it."""
        answer, program = self.work / "check_gpu.json", HERE / "check_gpu.pyz"
        ran = self.child(program, "--json", "--python", sys.executable, timeout=SHORT, printed=answer)
        self.evidence["check_gpu"] = ran
        if ran["result"] is None:
            return ended(ran)
        diagnosis = ran["result"]["diagnosis"]
        return None if ran["status"] == 0 else f"{diagnosis['sentence']} {diagnosis['command'] or ''}".strip()

    def part_models(self) -> str | None:
        """Write the models of the next two parts."""
        return self.write_models(*self.kit["models"])

    def part_scenarios(self) -> str | None:
        """Run the probe in every scenario of this machine's own GPUs."""
        found = self.evidence.setdefault("scenarios", [])
        failed = None
        for step in self.kit["scenarios"]:
            folder, result = self.work / "scenario", self.work / "probe.json"
            if step["planted"]:
                shutil.copytree(HERE / "planted", folder)
            else:
                folder.mkdir()
            models = (part for task, name in step["models"] for part in (task, self.models / name))
            ran = self.child(
                *(HERE / "scripts" / "probe.py", result, json.dumps(step["options"]), *models),
                cwd=folder,
                changes=step["changes"],
                timeout=SHORT,
                written=result,
            )
            planted = sorted(mark.name[: -len(".loaded")] for mark in folder.glob("*.loaded"))
            shutil.rmtree(folder)
            found.append({"scenarios": step["scenarios"], "planted": planted, **ran})
            failed = failed or failure_in(found[-1])
        first = self.first_result()
        return failed or (None if devices_of(first) else f"no layer was on a GPU: {reason_in(first)}")

    def part_comparison(self) -> str | None:
        """Compute on each GPU in use and on the CPU. The values are judged later."""
        found = self.evidence.setdefault("comparison", {})
        failed = None
        for device in self.devices():
            plan, result = self.work / "plan.json", self.work / "measured.json"
            plan.write_text(json.dumps({"device": device, "checks": self.kit["checks"]}), encoding="utf-8")
            script = HERE / "scripts" / "device_checks.py"
            ran = self.child(script, plan, result, cwd=self.models, timeout=LONG, written=result)
            found[device] = ran
            if ran["status"] != 0 and failed is None:
                failed = f"{device}: a check did not run: {ended(ran)}"
        return failed if found else "no GPU is in use"

    def part_bench(self) -> str | None:
        """Answer the same prompt on the CPU and on the first GPU, in turn."""
        found = self.evidence.setdefault("bench", [])
        setup = self.kit["bench"]
        model = setup["models"][self.shape]["file"]
        failed = self.write_models(model)
        gpu = {"CUDA_VISIBLE_DEVICES": first_gpu(self.first_result())} if len(self.devices()) > 1 else {}
        columns = (("cpu", 0, {"CUDA_VISIBLE_DEVICES": "-1"}), ("gpu", -1, gpu))
        request, result, script = self.work / "request.json", self.work / "sample.json", HERE / "scripts/bench_child.py"
        asked = {"model": str(self.models / model), "threads": self.report["machine"]["threads"]}
        asked.update({name: setup[name] for name in ("prompt_tokens", "tokens")})
        for number in range(setup["rounds"]):
            for device, layers, changes in columns if number % 2 == 0 else columns[::-1]:
                request.write_text(json.dumps({**asked, "gpu_layers": layers}), encoding="utf-8")
                ran = self.child(script, request, result, changes=changes, timeout=SHORT, written=result)
                found.append({"device": device, **ran})
                failed = failed or (ran["result"] or {"error": ended(ran)}).get("error")
                if device == "gpu" and not failed and not devices_of(ran["result"]):
                    failed = f"no layer was on a GPU: {reason_in(ran['result'])}"
        return failed

    def part_tests(self) -> str | None:
        """Run the tests of the installed wheel."""
        result = self.work / "tests.json"
        script = HERE / "scripts" / "gpu_tests.py"
        ran = self.child(script, self.models / "plain.gguf", result, timeout=LONG, written=result)
        self.evidence["tests"] = ran
        if ran["result"] is None:
            return ended(ran)
        failed = ", ".join(name for name, error in ran["result"]["tests"].items() if error)
        return f"failed: {failed}" if failed else None

    # ----------------------------------------------------------------------------------------------------- helpers

    def write_models(self, *names: str) -> str | None:
        """Write models by their recipes."""
        script = HERE / "scripts" / "model_data.py"
        ran = self.child(script, HERE / "headers" / "recipes.json", self.models, *names, timeout=SHORT)
        return None if ran["status"] == 0 else ended(ran)

    def first_result(self) -> dict[str, Any]:
        """The answer of the first scenario, which is the wheel as it is; empty if there is none."""
        runs = self.evidence.get("scenarios")
        return (runs[0]["result"] or [{}])[0] if runs else {}

    def devices(self) -> list[str]:
        """The GPUs that had layers in the first scenario."""
        return devices_of(self.first_result())

    def child(
        self,
        *arguments: object,
        timeout: float,
        cwd: Path | None = None,
        changes: dict[str, str] | None = None,
        written: Path | None = None,
        printed: Path | None = None,
    ) -> dict[str, Any]:
        """Run this Python in a process of its own; its result is a JSON file that it ``written`` or ``printed``."""
        for old in (written, printed):
            if old is not None and old.exists():
                old.unlink()
        start = time.monotonic()
        self.log(f"$ {' '.join(map(str, arguments))}")
        output = self.work / "output.txt"
        with output.open("wb") as stream, (printed or output).open("ab") as answer:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=str(cwd or self.work),
                env={**self.environment, **(changes or {})},
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=stream,
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(timeout)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it in the kernel
                        process.wait(KILL_WAIT)
        text = output.read_text(encoding="utf-8", errors="replace")
        self.log(text)
        return {
            "status": status,
            "seconds": round(time.monotonic() - start, 3),
            "output": text[-OUTPUT:],
            "result": read(written or printed),
        }

    def log(self, text: str) -> None:
        """Append to the log."""
        with (self.out / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text.replace(str(self.work), "<work>") + "\n")

    def save(self) -> None:
        """Write the report of what was done so far; the names of the temporary folder and of the kit are left out."""
        text = json.dumps(self.report)
        for folder, name in ((self.work, "<work>"), (HERE, "<kit>")):
            text = text.replace(json.dumps(str(folder))[1:-1], name)
        whole = json.loads(text)
        digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
        partial = self.out / f".{REPORT}.partial"
        partial.write_text(json.dumps({**whole, "sha256": digest}, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.out / REPORT)


def devices_of(result: dict[str, Any]) -> list[str]:
    """The GPUs that had layers according to the log in a result, by ggml's names."""
    if str(HERE / "check_gpu.pyz") not in sys.path:
        sys.path.insert(0, str(HERE / "check_gpu.pyz"))
    placement = importlib.import_module("check_gpu.placement")
    layers = placement.parse(result.get("log", ())).layers
    return sorted({layer.weights for layer in layers if (layer.weights or "").startswith("CUDA")})


def reason_in(result: dict[str, Any]) -> str:
    """Why CUDA is not in use."""
    return (result.get("cuda_status") or {}).get("reason") or "the log does not say"


def first_gpu(result: dict[str, Any]) -> str:
    """The value of ``CUDA_VISIBLE_DEVICES`` that shows only the first GPU in use."""
    status = result.get("cuda_status") or {}
    left_out = {gpu["index"] for gpu in status.get("left_out", ())}
    number = next(gpu["index"] for gpu in status["devices"] if gpu["index"] not in left_out)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


def failure_in(ran: dict[str, Any]) -> str | None:
    """The first scenario of a process that got no answer, and why."""
    answers = ran["result"] or []
    missing = [{"error": ended(ran)}] * (len(ran["scenarios"]) - len(answers))
    pairs = zip(ran["scenarios"], [*answers, *missing])
    errors = (f"{name}: {one['error'].strip().splitlines()[-1]}" for name, one in pairs if "error" in one)
    return next(errors, None if ran["status"] == 0 else ended(ran))


def damaged(files: dict[str, str]) -> Iterator[str]:
    """The files of the kit whose content is not the one that was packed."""
    for name, digest in files.items():
        path = HERE / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            yield name


def read(file: Path | None) -> Any:
    """The JSON in a file; ``None`` if there is none: the process ended before it wrote any."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text(encoding="utf-8")) if file is not None else None
    return None


def ended(ran: dict[str, Any]) -> str:
    """How a process ended, with the last line of its output."""
    last = ([line for line in ran["output"].splitlines() if line.strip()] or ["no output"])[-1]
    how = "did not end in time" if ran["status"] is None else f"ended with status {ran['status']}"
    return f"its process {how}: {last.strip()}"


if __name__ == "__main__":
    if sys.version_info[:2] < OLDEST_PYTHON:
        sys.exit(f"the GPU kit needs Python 3.{OLDEST_PYTHON[1]} or later, this is {platform.python_version()}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
