"""Draw a report as PNG: a panel for each of four figures, a bar for each measurement, a dot for each round."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

from build_config.tasks.bench.report import FIRST_TOKEN, PROMPT_SPEED, SPEED, TOTAL, column, conditions
from build_config.tasks.bench.results import Build, Device, GpuKind, median

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from build_config.tasks.bench.report import Metric
    from build_config.tasks.bench.results import DeviceReport, Measurement

_PANELS = (FIRST_TOKEN, PROMPT_SPEED, SPEED, TOTAL)
_COLOURS = {Device.CPU: "#0072B2", Device.GPU: "#E69F00"}
"""From Okabe and Ito's palette: distinguishable with every kind of colour blindness, and in print."""
_SIMULATED = "#BBBBBB"
_INK, _FAINT = "#222222", "#666666"
_PIXELS_PER_INCH = 150
_NAME_LENGTH = 24
"""Characters in a line of the name next to a bar."""


def draw(report: DeviceReport, path: Path) -> Path:
    """Write the chart to ``path`` and return it. Failed measurements have no bar and are named."""
    import matplotlib as mpl  # noqa: PLC0415  # installed only in a benchmark's environment

    mpl.use("Agg")  # a machine without a screen is the usual case
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415

    shown = [one for one in report.measurements if one.failure is None]
    height = 2.6 + 1.2 * max(1, len(shown))
    head, foot = 0.75 / height, 0.6 / height
    layout = ConstrainedLayoutEngine(rect=(0.01, foot, 0.98, 1 - head - foot), hspace=0.12, wspace=0.06)
    figure = Figure(figsize=(10, height), dpi=_PIXELS_PER_INCH, layout=layout)
    panels = figure.subplots(2, 2, sharey=True).flat  # the names are shown once, on the left
    for axes, metric in zip(panels, _PANELS, strict=True):
        _panel(axes, metric, report, shown)
    said = dict(conditions(report))
    subtitle = f"{said['model']}. Prompt and answer: {said['prompt and answer']}."
    figure.text(0.015, 1 - 0.13 / height, title(report), fontsize=14, fontweight="bold", color=_INK, va="top")
    figure.text(0.015, 1 - 0.45 / height, subtitle, fontsize=9, color=_FAINT, va="top")
    figure.text(0.015, 0.12 / height, _foot(report), fontsize=8, color=_FAINT, va="bottom")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    return path


def _panel(axes: Axes, metric: Metric, report: DeviceReport, shown: list[Measurement]) -> None:
    figures = [metric.values(one) for one in shown]
    farthest = max(itertools.chain.from_iterable(figures), default=1.0) or 1.0
    for place, (one, values) in enumerate(zip(shown, figures, strict=True)):
        middle = median(values) or 0.0
        simulated = one.device is Device.GPU and report.card.kind is GpuKind.SIMULATED
        hatched = simulated or one.build is Build.BASELINE
        colour, hatch = _SIMULATED if simulated else _COLOURS[one.device], "///" if hatched else None
        axes.barh(place, middle, height=0.62, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
        if len(values) > 1:
            axes.plot(values, [place] * len(values), "o", color=_INK, markeredgecolor="white", markersize=4.5)
        end = max([middle, *values]) + 0.02 * farthest
        axes.text(end, place, metric.text(middle), va="center", fontsize=9.5, fontweight="bold", color=_INK)
    better = "higher is better" if metric.higher_is_better else "lower is better"
    axes.set_title(f"{metric.title}, {metric.unit}", loc="left", fontsize=10.5, fontweight="bold", color=_INK)
    axes.set_title(better, loc="right", fontsize=8.5, color=_FAINT)
    names = ["\n".join(textwrap.wrap(column(report, one), _NAME_LENGTH)) for one in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=9.5)
    axes.set_ylim(len(shown) - 0.45, -0.55)  # the first one at the top
    axes.set_xlim(0, farthest * 1.25)
    axes.tick_params(axis="y", length=0, colors=_INK)
    axes.tick_params(axis="x", labelsize=8, colors=_FAINT, length=3)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#CCCCCC")
    axes.grid(axis="x", color="#EEEEEE", linewidth=0.8)
    axes.set_axisbelow(True)


def title(report: DeviceReport) -> str:
    """The headline, which names a simulated GPU as such."""
    match report.card.kind:
        case GpuKind.REAL:
            return "The same prompt on the CPU and on the GPU"
        case GpuKind.NONE:
            return "The prompt on the CPU: this machine has no GPU"
        case GpuKind.SIMULATED:
            return "SIMULATED GPU: its bars say nothing about speed"


def _foot(report: DeviceReport) -> str:
    text = "Bars are medians, dots the rounds. " if report.rounds > 1 else ""
    failed = [column(report, one) for one in report.failures]
    text += f"FAILED: {', '.join(failed)}. " if failed else ""
    against = f", compared with {report.against}" if report.against else ""
    return f"{text}{dict(conditions(report))['processor']}.\n{report.wheel}{against}. {report.created}."
