"""Write the report of a GPU kit for people: what was seen, without a judgement of the numbers.

    python report_text.py REPORT.json REPORT.md

Standard library only, Python 3.9 or later.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SIMULATED = "SIMULATED"


def main(report_file: str, text_file: str) -> int:
    """Write the text."""
    report = json.loads(Path(report_file).read_text(encoding="utf-8"))
    Path(text_file).write_text(markdown(report) + "\n", encoding="utf-8")
    return 0


def markdown(report: dict[str, Any]) -> str:
    """The report for people: what was seen, without a judgement of the numbers."""
    return "\n".join(_lines(report))


def _lines(report: dict[str, Any]) -> Iterator[str]:
    evidence, here = report["evidence"], report["machine"]
    driver = ((evidence.get("check_gpu") or {}).get("result") or {}).get("driver") or {}
    gpus = driver.get("devices") or []
    if SIMULATED in json.dumps(gpus):
        yield "# SIMULATED GPU: no kernel ran, and no figure says anything about speed"
    else:
        yield f"# {report['wheel']['name']} on {', '.join(gpu['name'] for gpu in gpus) or 'a machine without a GPU'}"
    yield ""
    yield f"{report['started']}, {report['project']}, SHA-256 of the wheel `{report['wheel']['sha256']}`."
    yield f"Driver {driver.get('version')}, CUDA {driver.get('cuda')}; {here['system']}, {here['cores']} cores, glibc "
    yield f"{here['glibc']}, Python {here['python']}, numpy {here['numpy']}."
    yield ""
    yield "Nothing here is judged but that each part ran: `nox -s record_gpu` judges report.json."
    yield from ("", "| part | seconds | result |", "|---|---|---|")
    for name, part in report["parts"].items():
        yield f"| {name} | {part['seconds']:.1f} | {'FAILED: ' + part['failed'] if part['failed'] else 'passed'} |"
    if report["interrupted"]:
        yield "| | | STOPPED before the end |"
    for ran in evidence.get("scenarios", ()):
        results: list[dict[str, Any]] = [*(ran["result"] or ()), *[{}] * len(ran["scenarios"])]
        for name, result in zip(ran["scenarios"], results):
            lines = [line for line in result.get("log", ()) if re.search(r"assigned to|: dev =|offloaded", line)]
            yield from ("", f"## {name}", "", "```", *(lines or ["the log has no line about layers"]), "```")
            if note := (result.get("cuda_status") or {}).get("note"):
                yield from ("", note)
    yield from _numbers(report)
    for name, error in _tests(evidence).items():
        yield f"- {name}: {error.strip().splitlines()[-1] if error else 'passed'}"


def _numbers(report: dict[str, Any]) -> Iterator[str]:
    evidence = report["evidence"]
    for device, ran in evidence.get("comparison", {}).items():
        yield from ("", f"## {device} compared with the CPU", "", "| check | values |", "|---|---|")
        for name, values in ((ran["result"] or {}).get("checks") or {}).items():
            shown = {key: value for key, value in values.items() if isinstance(value, (int, float, type(None)))}
            if "error" in values:
                shown = {"error": values["error"].strip().splitlines()[-1]}
            yield f"| {name} | {', '.join(f'{key} {value}' for key, value in shown.items())} |"
    if "bench" in evidence:
        yield from ("", "## Speed", "", f"The model: {report['bench_model']['name']}.", "")
        yield from ("| device | first token, s | whole answer, s |", "|---|---|---|")
        for ran in evidence["bench"]:
            times = ran["result"] or {}
            yield f"| {ran['device']} | {times.get('first_token')} | {times.get('last_token')} |"
    if "tests" in evidence:
        yield from ("", "## Tests", "")


def _tests(evidence: dict[str, Any]) -> dict[str, str | None]:
    """The tests that ran, each with its error."""
    found: dict[str, str | None] = ((evidence.get("tests") or {}).get("result") or {}).get("tests") or {}
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
