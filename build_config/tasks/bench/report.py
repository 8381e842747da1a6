"""Show results as rows of a table and as Markdown. Pure: reads and prints nothing."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.tasks.bench.results import BUSY, Build, Device, GpuKind, is_disturbed, median

if TYPE_CHECKING:
    from collections.abc import Iterator

    from build_config.tasks.bench.results import DeviceReport, Measurement, Ratio

REPORTED = (
    "For comparison, as users report it and not measured here: an answer that takes about 4,000 ms on the CPU takes "
    "200 to 500 ms on an RTX 4060."
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table: a field of ``Sample``, divided by ``divisor``.

    ``higher_is_better`` is ``None`` if the devices are not compared.
    """

    field: str
    title: str
    unit: str
    higher_is_better: bool | None = None
    digits: int = 0
    divisor: float = 1

    def values(self, measurement: Measurement) -> list[float]:
        """The values of all rounds that have one."""
        found = (getattr(one, self.field) for one in measurement.samples)
        return [value / self.divisor for value in found if value is not None]

    def text(self, value: float) -> str:
        """The value without its unit."""
        return f"{value:,.{self.digits}f}"


FIRST_TOKEN = Metric("first_token_ms", "time to first token", "ms", higher_is_better=False)
PROMPT_SPEED = Metric("prompt_speed", "prompt", "tokens/s", higher_is_better=True, digits=1)
SPEED = Metric("speed", "generation", "tokens/s", higher_is_better=True, digits=1)
TOTAL = Metric("total_ms", "whole response", "ms", higher_is_better=False)
METRICS = (
    FIRST_TOKEN,
    PROMPT_SPEED,
    SPEED,
    TOTAL,
    Metric("load_ms", "opening the model", "ms"),
    Metric("cores_busy", "CPU load", "cores", digits=2),
    Metric("process_bytes", "peak memory of the process", "MB", divisor=1e6),
    Metric("device_bytes", "buffers on the GPU", "MB", divisor=1e6),
    Metric("device_peak_bytes", "peak memory of the GPU", "MB", divisor=1e6),
)


def header(report: DeviceReport) -> tuple[str, ...]:
    """The names of the columns."""
    columns = tuple(column(report, one) for one in report.measurements)
    return ("", *columns, "GPU : CPU") if _compared(report) else ("", *columns)


def column(report: DeviceReport, measurement: Measurement) -> str:
    """The name of a measurement: the device, and the build if there are two."""
    device = "CPU" if measurement.device is Device.CPU else report.card.title
    if report.against is None:
        return device
    return f"{device}, {'ours' if measurement.build is Build.OURS else 'baseline'}"


def rows(report: DeviceReport) -> tuple[tuple[str, ...], ...]:
    """A row for each metric: medians, with the minimum and the maximum of the rounds."""
    pair = _compared(report)
    lines = []
    for metric in METRICS:
        cells = [_cell(metric, one) for one in report.measurements]
        if any(cells):
            factor = (_times_faster(metric, *pair),) if pair else ()
            lines.append((f"{metric.title}, {metric.unit}", *(cell or "-" for cell in cells), *factor))
    return tuple(lines)


def remarks(report: DeviceReport) -> tuple[str, ...]:
    """Remarks on the table: simulation, failures, disturbances, comparison with the baseline."""
    failed = [f"{column(report, one)}: FAILED: {one.failure}" for one in report.failures]
    notice = (report.notice,) if report.notice else ()
    return (*notice, *failed, *_disturbed(report), *map(ratio_line, report.ratios), REPORTED)


def _disturbed(report: DeviceReport) -> Iterator[str]:
    for one in report.measurements:
        if one.repeated:
            yield f"{column(report, one)}: repeated {one.repeated} times, because {BUSY}"
        busy = median(sample.cores_busy for sample in one.samples)
        if is_disturbed(busy, one.device, report.threads):
            yield f"{column(report, one)}: {report.threads} threads got only {busy:.2f} cores, because {BUSY}"


def ratio_line(ratio: Ratio) -> str:
    """One comparison with the baseline and its verdict."""
    if ratio.unjudged:
        verdict = f"not judged: {ratio.unjudged}"
    else:
        verdict = f"{'passed' if ratio.passed else 'FAILED'}, the limit is {ratio.limit:.2f}"
    return (
        f"{ratio.device.label}: {ratio.value:.3f} of the baseline's tokens per second "
        f"({ratio.ours:.1f} to {ratio.other:.1f}): {verdict}"
    )


def conditions(report: DeviceReport) -> tuple[tuple[str, str], ...]:
    """The conditions of the measurement."""
    rounds = f"{report.rounds} rounds" if report.rounds > 1 else "1 round"
    pairs = [
        ("processor", f"{report.machine.cpu}, {report.machine.cores} cores, {report.threads} threads used"),
        ("GPU", report.card.title or "none"),
        ("wheel", report.wheel),
    ]
    if report.against is not None:
        pairs.append(("compared with", report.against))
    pairs += [
        ("model", f"{report.model}, {report.model_bytes / 1e6:,.0f} MB"),
        ("prompt and answer", f"{report.prompt_tokens} and {report.tokens} tokens, {rounds}"),
        ("measured", report.created),
    ]
    return tuple(pairs)


def markdown(report: DeviceReport) -> str:
    """The whole report as a page."""
    title = "CPU and GPU" if report.card.kind is not GpuKind.NONE else "CPU"
    if report.card.kind is GpuKind.SIMULATED:
        title += " (SIMULATED)"
    names = header(report)
    lines = [
        f"# The same prompt: {title}",
        "",
        *(f"- {name}: {value}" for name, value in conditions(report)),
        "",
        _line(names),
        _line(("---", *("---:" for _ in names[1:]))),
        *map(_line, rows(report)),
        "",
        "Medians of the rounds, in brackets the minimum and the maximum; each round is a new process.",
        "",
        *(f"- {remark}" for remark in remarks(report)),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(metric: Metric, measurement: Measurement) -> str:
    """Empty if there is no figure."""
    if measurement.failure is not None:
        return "FAILED"
    values = metric.values(measurement)
    if not values or (measurement.device is Device.CPU and not any(values)):
        return ""
    text = metric.text(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({metric.text(min(values))}-{metric.text(max(values))})"


def _compared(report: DeviceReport) -> tuple[Measurement, Measurement] | None:
    """Our build on the CPU and on the GPU; ``None`` unless the GPU is real and both were measured."""
    ours = {one.device: one for one in report.measurements if one.build is Build.OURS and one.failure is None}
    if report.card.kind is GpuKind.REAL and len(ours) == len(Device):
        return ours[Device.CPU], ours[Device.GPU]
    return None


def _times_faster(metric: Metric, on_cpu: Measurement, on_gpu: Measurement) -> str:
    if metric.higher_is_better is None:
        return ""
    cpu, gpu = (median(metric.values(one)) for one in (on_cpu, on_gpu))
    if not cpu or not gpu:
        return ""
    return f"{gpu / cpu if metric.higher_is_better else cpu / gpu:.1f} x"
