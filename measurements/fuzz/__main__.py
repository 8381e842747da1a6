"""Feed the parsers of what others write with damaged inputs.

    python -m measurements.fuzz [--seconds 10 | --inputs 100000] [--seed 1] [--keep FOLDER] [PARSER...]

Prints for each parser how many inputs it read and refused, the time of the slowest, and what ended otherwise than by an
error of its own: a crash, more than 5 seconds, or more than 1 GiB of memory. ``--keep`` writes those inputs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from build_config.system.console import Console
from measurements.fuzz import run
from measurements.fuzz.targets import TARGETS


def main() -> int:
    """Run; status 1 if there is a find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parsers", nargs="*", help="parts of names; default: all")
    parser.add_argument("--seconds", type=float, help="for each parser; default: 10")
    parser.add_argument("--inputs", type=int, help="for each parser, instead of a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that were found")
    options = parser.parse_args()
    chosen = [one for one in TARGETS if not options.parsers or any(part in one.name for part in options.parsers)]
    seconds = options.seconds if options.seconds or options.inputs else 10.0
    console, rows, finds, total = Console(), [], 0, 0
    run.limit_memory()
    for target in chosen:
        outcome = run.fuzz(target, options.seed, seconds=seconds, inputs=options.inputs)
        row = (outcome.inputs, outcome.refused, outcome.seconds, f"{outcome.slowest * 1000:.0f} ms", len(outcome.finds))
        rows.append((outcome.target, *map(str, row)))
        finds += len(outcome.finds)
        total += outcome.inputs
        for find in outcome.finds:
            console.warn(f"{outcome.target}: {find.what} [{find.name}]")
            if options.keep is not None:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / find.name).write_bytes(find.data)
    console.table("", tuple(rows), header=("parser", "inputs", "refused", "seconds", "slowest", "finds"))
    console.note(f"{total} inputs, {finds} finds, seed {options.seed}")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
