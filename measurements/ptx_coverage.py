"""Translate the PTX of CUDA files for other architectures, or of another llama.cpp, and name what is refused.

    python -m measurements.ptx_coverage BUILD FOLDER [--arch 75 ...] [--file norm.cu ...] [--llama-cpp SOURCES]

BUILD is the build tree of a shard: each file is compiled with its command there, but only to PTX, and for another
architecture. SOURCES, a folder with the sources of another llama.cpp, takes the place of the sources of the build.
Nothing is built. FOLDER gets the PTX, which a later run finds there, and ``coverage.json``: for each file and
architecture the kernels, those that the translator turns into C, and each reason for a refusal with its count. The
files are those that the checks of ``nox -s emulate`` launch.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import CommandError
from build_config.system import jsonio
from build_config.system.console import Console
from build_config.system.processes import Command, run
from build_config.testbed.emulated_device import ptx_module, translation
from build_config.testbed.emulated_device.ptx_source import PtxError

if TYPE_CHECKING:
    from collections.abc import Iterator

ARCHS = ("75", "86", "89", "90", "120a")
FILES = (
    *("binbcast.cu", "convert.cu", "cpy.cu", "getrows.cu", "ggml-cuda.cu", "mmf-instance-ncols_8.cu", "mmvf.cu"),
    *("norm.cu", "rope.cu", "set-rows.cu", "softmax.cu", "unary.cu", "quantize.cu", "mmvq.cu"),
    *("mmq-instance-q4_k.cu", "mmq-instance-mxfp4.cu", "fattn-vec-instance-f16-f16.cu"),
    *("fattn-mma-f16-instance-ncols1_8-ncols2_2.cu", "fattn-mma-f16-instance-ncols1_32-ncols2_2.cu"),
)
SECONDS_ALLOWED = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A file for an architecture. ``refused`` are reasons without their places, and how many kernels have each.

    ``missing`` says why there is no PTX.
    """

    arch: str
    source: str
    kernels: int = 0
    translated: int = 0
    refused: dict[str, int] = dataclasses.field(default_factory=dict)
    missing: str = ""


def commands(build: Path) -> dict[str, dict[str, str]]:
    """The compilations of a build tree by the name of the CUDA file."""
    entries = json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))
    return {Path(entry["file"]).name: entry for entry in entries if entry["file"].endswith(".cu")}


def to_ptx(entry: dict[str, str], arch: str, sources: Path | None) -> tuple[str, ...]:
    """The command that writes the PTX of a file for an architecture, without ``-o``."""
    ggml = next(parent for parent in Path(entry["file"]).parents if parent.name == "ggml")
    text = entry["command"]
    if sources is not None:
        text = text.replace(str(ggml.parent), str(sources))
    kept: list[str] = []
    parts = iter(shlex.split(text))
    for part in parts:
        if part == "-o":
            next(parts)
        elif part != "-c" and not part.startswith(("--generate-code", "-compress-mode")):
            kept.append(part)
    first = next(place for place, part in enumerate(kept) if Path(part).name == "nvcc")  # a launcher may precede it
    return (*kept[first:], "-ptx", "-gencode", f"arch=compute_{arch},code=compute_{arch}")


def compiled(argv: tuple[str, ...], directory: Path, folder: Path) -> Path:
    """The PTX of a command, made unless an earlier run made it. Raises ``CommandError``."""
    path = folder / f"{hashlib.sha256(chr(0).join(argv).encode()).hexdigest()[:32]}.ptx"
    if not path.is_file():
        partial = path.with_suffix(".partial")
        run(Command(argv=(*argv, "-o", str(partial)), cwd=directory), timeout=SECONDS_ALLOWED)
        partial.replace(path)
    return path


def read(path: Path, row: Row) -> Row:
    """Translate every kernel of a PTX file."""
    try:
        module = ptx_module.read_module(path.read_text(encoding="utf-8"), row.source)
    except PtxError as error:
        return dataclasses.replace(row, missing=f"the file is refused: {error}")
    refused: Counter[str] = Counter()
    kernels = [name for name, function in module.functions.items() if function.kernel]
    for name in kernels:
        try:
            translation.translate(module, name)
        except PtxError as error:
            refused[str(error).rpartition(": ")[2]] += 1
    return dataclasses.replace(
        row, kernels=len(kernels), translated=len(kernels) - refused.total(), refused=dict(sorted(refused.items()))
    )


def rows(
    build: Path, folder: Path, archs: tuple[str, ...], files: tuple[str, ...], sources: Path | None
) -> Iterator[Row]:
    """Compile and translate each file for each architecture."""
    known = commands(build)
    for arch in archs:
        for source in files:
            row = Row(arch=arch, source=source)
            argv = to_ptx(known[source], arch, sources)
            path = next(Path(part) for part in argv if part.endswith(f"/{source}") and part[0] != "-")
            if not path.is_file():
                yield dataclasses.replace(row, missing="these sources have no such file")
                continue
            try:
                ptx = compiled(argv, Path(known[source]["directory"]), folder)
            except CommandError as error:
                yield dataclasses.replace(row, missing=f"does not compile: {error.message}")
                continue
            yield read(ptx, row)


def main(given: argparse.Namespace) -> int:
    """Print a line for each file as soon as it is done; the status is 0 if nothing is refused or missing."""
    given.folder.mkdir(parents=True, exist_ok=True)
    done: list[Row] = []
    for row in rows(
        given.build, given.folder.absolute(), tuple(given.arch or ARCHS), tuple(given.file or FILES), given.llama_cpp
    ):
        done.append(row)
        reasons = "; ".join(f"{reason} ({count})" for reason, count in row.refused.items())
        said = row.missing or f"{row.translated} of {row.kernels} kernels translated"
        Console().raw(f"{row.arch} {row.source}: {said}{reasons and f'; refused: {reasons}'}")
        jsonio.write(given.folder / "coverage.json", done)
    return int(any(row.refused or row.missing for row in done))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", action="append")
    parser.add_argument("--file", action="append")
    parser.add_argument("--llama-cpp", type=Path)
    sys.exit(main(parser.parse_args()))
