"""Measure how far correct and wrong results are from exact arithmetic: the basis of the bounds in numerics.py.

    python -m measurements.logit_errors PYTHON

PYTHON is an interpreter whose environment has the wheel. Everything is computed on the CPU, by the child process of the
device checks. Prints one line for each type of weights: the error of the logits compared with the same weights as
float32, the same with flash attention, then the values of the device checks with the CPU in place of the GPU. Then one
line for each multiplied tensor of the float32 model, with one column for each factor.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from build_config.steps.validation import compare_with_cpu
from build_config.steps.validation.numerics import CPU, Plan
from build_config.testbed import synthetic_model
from build_config.testbed.synthetic_model import SMALL

LAYERS = ("blk.0.ffn_up", "blk.1.attn_q", "blk.1.attn_v", "blk.3.ffn_down", "output")
CHANGED = tuple(f"{layer}.weight" for layer in LAYERS)
FACTORS = (1.01, 1.1, 1.5, 0.0)


def exact(model: Path) -> Path:
    """Write the same weights as float32."""
    target = synthetic_model.write(model.with_suffix(".exact.gguf"), SMALL)
    weights = {tensor.name: tensor for tensor in gguf.GGUFReader(model).tensors}
    for tensor in gguf.GGUFReader(target, "r+").tensors:
        source = weights[tensor.name]
        values = gguf.quants.dequantize(source.data, source.tensor_type)
        tensor.data[:] = np.asarray(values, dtype=np.float32).reshape(tensor.data.shape)
    return target


def scaled(model: Path, name: str, factor: float) -> Path:
    """Write a copy with one multiplied tensor."""
    target = model.with_name(f"{name}-{factor}.gguf")
    shutil.copyfile(model, target)
    for tensor in gguf.GGUFReader(target, "r+").tensors:
        if tensor.name == name:
            tensor.data[:] *= np.float32(factor)
    return target


def main(python: str) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        requests = list(compare_with_cpu.make_plan(folder, device=CPU).checks)
        models = {one.kind: one.model for one in requests if one.check == "batches"}
        plain = models["F32"]
        logits = next(one for one in requests if one.name == "logits F32")  # compared with itself
        for kind, model in models.items():
            unrounded = dataclasses.replace(logits, name=f"exact {kind}", model=model, reference=exact(model))
            flash = dataclasses.replace(unrounded, name=f"{unrounded.name}, flash attention", flash=True)
            requests += [unrounded, flash]
        changed = {f"{name} {factor}": scaled(plain, name, factor) for name in CHANGED for factor in FACTORS}
        changed["another model"] = synthetic_model.write(folder / "other.gguf", SMALL, seed=1)
        requests += [dataclasses.replace(logits, name=name, model=model) for name, model in changed.items()]
        plan = Plan(device=CPU, checks=tuple(requests))
        checks = compare_with_cpu.measure(Path(python), folder, plan).checks
        columns = ("exact {}", "exact {}, flash attention", "logits {}", "logits {}, flash attention", "batches {}")
        lines = {kind: [column.format(kind) for column in columns] for kind in models}
        lines |= {name: [f"{name} {factor}" for factor in FACTORS] for name in CHANGED}
        for name, cells in {**lines, "another model": ["another model"]}.items():
            print(f"| {name} | {' | '.join(format(checks[cell]['nmse'], '.1e') for cell in cells)} |")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
