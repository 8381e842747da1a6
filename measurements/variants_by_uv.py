"""Let uv choose among variant wheels for several machines, and load what it took on the same machine, simulated.

    python -m measurements.variants_by_uv WHEEL... --include FOLDER

``WHEEL`` are finished wheels with their records, each for one shard set; FOLDER has the headers of CUDA. The portable
wheel is a small one without libraries, because a real one takes hours to build. Everything happens in a temporary
folder. The result is a table in Markdown. It needs the requirements of the tests (``nox -s tests`` installs them), and
a C compiler.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from build_config.system.console import Console
from build_config.system.layout import PACKAGE, Layout
from build_config.tasks.index import snippets
from build_config.testbed import simulated_device, synthetic_model
from build_config.testbed.simulated_device import SimulatedLibraries, SimulatedMachine
from tests.support import client_environment, nvidia_smi
from tests.support.indexed import PORTABLE, House
from tests.support.served import server

MACHINES = (("7.5",), ("8.6",), ("8.9",), ("9.0",), ("12.0",), (), ("8.6", "8.9"), ("8.6", "12.0"), ("8.9", "12.0"))
OLD = "570.86.10"
OTHERS = ("diskcache", "jinja2", "markupsafe", "numpy", "typing-extensions")
"""What llama_cpp imports."""
PROBE = """
import contextlib, json, os, sys
import llama_cpp
with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
    model = llama_cpp.Llama(sys.argv[1], n_gpu_layers=-1, n_ctx=64, verbose=False)
    model("the cat", max_tokens=2)
status = llama_cpp.cuda_status()
left_out = [device.capability for device in status.left_out]
used = [device.capability for device in status.devices if device not in status.left_out] if status.loaded else []
print(json.dumps([status.shard, used, left_out, status.reason]))
"""


@dataclass(frozen=True)
class Row:
    """A machine, what uv took, and what that wheel did there."""

    gpus: str
    driver: str
    wheel: str
    seconds: float
    does: str


def measure(url: str, folder: Path, capabilities: tuple[str, ...], driver: str, doubles: SimulatedLibraries) -> Row:
    """Install for one machine, and load a model there."""
    target, programs = folder / "target", folder / "programs"
    shutil.rmtree(target, ignore_errors=True)
    nvidia_smi.write(programs, capabilities, driver)
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    _, *arguments = snippets.of_variants(f"{url}variants/").text.split()
    begin = time.monotonic()
    client_environment.run(
        *(uv, *arguments, "--no-deps", "--target", target, "--python", sys.executable),
        variables={"PATH": str(programs), "UV_NO_CACHE": "1", "UV_NO_CONFIG": "1", "HOME": str(folder)},
    )
    seconds = time.monotonic() - begin
    labels = [
        label for path in target.glob("*.dist-info/variant.json") for label in json.loads(path.read_text())["variants"]
    ]
    return Row(
        gpus=" and ".join(capabilities) or "none",
        driver=driver if capabilities else "none",
        wheel=f"`{labels[0]}`" if labels else "the portable wheel",
        seconds=seconds,
        does=did(target, folder, capabilities, doubles) if labels else "",
    )


def did(target: Path, folder: Path, capabilities: tuple[str, ...], doubles: SimulatedLibraries) -> str:
    """What the wheel does on the machine, whose GPUs are simulated."""
    variables = {"PYTHONPATH": f"{target}:{folder / 'others'}", "LD_LIBRARY_PATH": ""}
    variables |= doubles.environment(SimulatedMachine(capabilities=capabilities))
    said = client_environment.run(sys.executable, "-c", PROBE, folder / "model.gguf", variables=variables)
    shard, used, left_out, reason = json.loads(said.splitlines()[-1])
    if shard is None:
        return f"runs on the CPU: {reason}"
    return f"loads `{shard}`, uses {' and '.join(used)}" + (
        f", leaves out {' and '.join(left_out)}" if left_out else ""
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--include", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        synthetic_model.write(folder / "model.gguf")
        doubles = simulated_device.build(folder / "doubles", include=options.include, major=13, cc="cc")
        layout = Layout(checkout=PACKAGE.parent, work_root=folder)
        source = ("--no-deps", "--constraint", layout.locks / "validation.txt", "--target", folder / "others")
        client_environment.uv("pip", "install", "--python", sys.executable, *source, *OTHERS)
        console = Console()
        house = House(folder / "checkout")
        house.build(PORTABLE)
        begin = time.monotonic()
        made = house.variant(*options.wheels)
        console.raw(f"{len(made)} variant wheels in {time.monotonic() - begin:.1f} s")
        house.write()
        with server(house.index, "http.server") as url:
            for capabilities in MACHINES:
                console.raw(line(measure(url, folder, capabilities, "580.65.06", doubles)))
            console.raw(line(measure(url, folder, ("8.9",), OLD, doubles)))


def line(row: Row) -> str:
    """A row of the table."""
    return f"| {row.gpus} | {row.driver} | {row.wheel} | {row.seconds:.1f} | {row.does} |"


if __name__ == "__main__":
    main()
