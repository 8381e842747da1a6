"""Load the installed llama-cpp-python and generate with a tiny model of random weights, on the CPU.

    python ci/try_installed_wheel.py CHECKOUT

The package is in the environment of ``python``. The environment that built the wheel writes the model; after a build
with a PEP 517 front end it is below the checkout (``.build-environment``).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

WRITE = """
import pathlib, sys
from build_config.testbed import synthetic_model
synthetic_model.write(pathlib.Path(sys.argv[1]))
"""
TOKENS = 8


def main(checkout: Path) -> None:
    """Generate, and print the libraries in use."""
    import llama_cpp  # noqa: PLC0415  # the package to try

    programs = ("bin/python", "Scripts/python.exe")
    found = (path for name in programs for path in checkout.glob(f".build-environment/*/{name}"))
    writer = next(found, None)
    if writer is None:
        sys.exit(f"{checkout} has no .build-environment: build the wheel there first")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "tiny.gguf")
        subprocess.run([writer, "-c", WRITE, model], cwd=checkout, check=True)  # noqa: S603  # no shell
        llama = llama_cpp.Llama(str(model), n_gpu_layers=0, n_ctx=64, verbose=False)
        answer = llama.create_completion("the cat", max_tokens=TOKENS, temperature=0.0)
        llama.close()
    print(f"llama_cpp {llama_cpp.__version__} from {Path(llama_cpp.__file__).parent}: {answer['choices'][0]['text']!r}")  # noqa: T201
    if not answer["usage"]["completion_tokens"]:
        sys.exit("nothing was generated")
    print(llama_cpp.llama_print_system_info().decode())  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
