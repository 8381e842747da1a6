"""Measure a wheel on the CPU and on the GPU, and write the report, the table and the chart."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from build_config import archs
from build_config.errors import MeasurementError
from build_config.formats import wheelfile
from build_config.inputs import runtime_files
from build_config.steps.locks import download
from build_config.steps.wheelhouse.publication import newest_wheel
from build_config.system import jsonio, machine, workroot
from build_config.tasks import bench
from build_config.tasks.bench import chart as bench_chart
from build_config.tasks.bench import report as bench_report
from build_config.tasks.bench import results as bench_results
from build_config.tasks.simulate import of_wheel, provide_simulation
from build_config.testbed import simulated_device, synthetic_model

if TYPE_CHECKING:
    from build_config.model import Wheel
    from build_config.system.console import Console
    from build_config.system.layout import Layout
    from build_config.tasks.bench.results import DeviceReport


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBenchRequest:
    """The measurements to make. Without the file ``model``, a random one of ``synthetic_model.SHAPES`` is made.

    ``against`` is the baseline: a wheel or the interpreter of an environment. ``simulate`` is the compute capability of
    a simulated GPU.
    """

    wheel: Path | None = None
    model: Path | None = None
    synthetic: str = "1b"
    kind: str = "Q4_K_M"
    against: Path | None = None
    prompt_tokens: int = 256
    tokens: int = 64
    rounds: int = 3
    simulate: str | None = None
    out: Path | None = None


def bench_devices(request: DeviceBenchRequest, layout: Layout, console: Console) -> DeviceReport:
    """Measure a wheel on the CPU and on the GPU, and write ``device.json``, ``device.md`` and ``device.png``.

    Raises ``MeasurementError`` if a measurement failed or the wheel is slower than allowed; the files are written even
    then.
    """
    chosen = request.wheel or newest_wheel(layout)
    with workroot.claim(layout, purpose=f"bench {chosen.name}", console=console):
        plan = bench.DevicePlan(
            ours=wheelfile.read(chosen),
            machine=machine.describe(),
            model=request.model,
            shape=synthetic_model.SHAPES[request.synthetic],
            kind=request.kind,
            against=bench_subject(request.against),
            prompt_tokens=request.prompt_tokens,
            tokens=request.tokens,
            rounds=request.rounds,
        )
        bench.check(plan)
        if request.simulate is not None:
            simulation = bench_simulation(request.simulate, layout, console, cuda=of_wheel(chosen))
            plan = dataclasses.replace(plan, simulation=simulation)
        download.fetch(runtime_files(chosen, layout), layout.downloads, console)
        report = bench.measure_devices(plan, created=datetime.now(UTC), layout=layout, console=console)
    folder = request.out or layout.bench
    jsonio.write(folder / "device.json", report)
    jsonio.write_text(folder / "device.md", bench_report.markdown(report))
    bench_chart.draw(report, folder / "device.png")
    console.table("", bench_report.rows(report), header=bench_report.header(report))
    for remark in bench_report.remarks(report):
        console.note(remark)
    console.note(f"device.json, device.md and device.png are in {folder}")
    bad = [f"{one.device.label}: {one.failure}" for one in report.failures]
    bad += [
        bench_report.ratio_line(ratio)
        for ratio in report.ratios
        if ratio.passed is False or ratio.unjudged == bench_results.BUSY
    ]
    if bad:
        raise MeasurementError("; ".join(bad), log=layout.logs / bench.LOG)
    return report


def bench_subject(against: Path | None) -> Wheel | Path | None:
    """The baseline: a wheel by its name, else the interpreter of an environment with an installed build."""
    return wheelfile.read(against) if against is not None and against.suffix == ".whl" else against


def bench_simulation(capability: str, layout: Layout, console: Console, *, cuda: str) -> bench.Simulation:
    """Compile the simulated GPU and give the variables with which a process runs on it."""
    made_of = provide_simulation(capability, layout, console, cuda=cuda)
    doubles = simulated_device.build(
        layout.bench / "simulated-device",
        include=made_of.include,
        major=int(cuda.partition(".")[0]),
        cc=made_of.cc,
        log=layout.logs / bench.LOG,
    )
    simulated = simulated_device.SimulatedMachine(capabilities=(archs.as_capability(capability),))
    without_gpu = dataclasses.replace(simulated, fault="no-device")
    return bench.Simulation(
        capability=simulated.capabilities[0],
        changes={"CUDA_VISIBLE_DEVICES": None, **doubles.environment(simulated)},
        no_device=dict(doubles.environment(without_gpu)),
    )
