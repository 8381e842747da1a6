"""Run llama-cpp-python's own tests with a wheel, show their outcome and keep the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.errors import ValidationError
from build_config.formats import wheelfile
from build_config.inputs import runtime_files
from build_config.steps import locks
from build_config.steps.locks import download
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio, workroot
from build_config.tasks import upstream_tests

if TYPE_CHECKING:
    from pathlib import Path

    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.upstream_tests.results import UpstreamTestReport


def run_upstream_tests(path: Path | None, layout: Layout, console: Console) -> UpstreamTestReport:
    """Run upstream's own tests with a wheel file, by default the newest of the wheelhouse; the report is kept.

    Raises ``ValidationError`` if one fails or none ran.
    """
    chosen = path or newest_wheel(layout)
    with workroot.claim(layout, purpose=f"upstream tests of {chosen.name}", console=console):
        source = locks.read_source_lock(layout)
        (archive,) = download.fetch((source.file,), layout.downloads, console)
        download.fetch(runtime_files(chosen, layout), layout.downloads, console)
        tested = wheelfile.read(chosen)
        report = upstream_tests.run(
            tested, source, archive, wheels_folder=chosen.parent, layout=layout, console=console
        )
        jsonio.write(layout.state / "upstream-tests" / f"{tested.sha256}.json", report)
    for outcome, tests in (("left out", report.left_out), ("skipped", report.skipped), ("FAILED", report.failed)):
        for test in tests:
            console.note(f"{outcome}: {test.id} ({test.reason})")
    counts = (
        ("passed", str(len(report.passed)), ""),
        ("failed", str(len(report.failed)), ""),
        ("skipped", str(len(report.skipped)), "by upstream itself"),
        ("left out", str(len(report.left_out)), "because they download a model"),
        ("collected", str(report.collected), f"tests of llama-cpp-python {report.upstream}"),
    )
    console.table("", counts)
    if not report.good:
        message = f"{chosen.name}: of upstream's own tests {len(report.failed)} failed and {len(report.passed)} passed"
        raise ValidationError(message, remedy="read pytest's output in the log", log=layout.logs / upstream_tests.LOG)
    return report
