"""Make numpy usable under Wine.

numpy since 2.1 imports the functions for complex numbers of C99 (``cpow``, ``crealf``) from Microsoft's C runtime. In
Wine's, most of them are stubs that end the process. So numpy's libraries import a small DLL of mingw's functions, which
forwards all other functions to Wine's runtime. Windows itself needs none of this.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pefile  # type: ignore[import-untyped,unused-ignore]

from build_config.system import processes

if TYPE_CHECKING:
    from ci.wine.tree import Tree

RUNTIME = b"api-ms-win-crt-math-l1-1-0.dll"
SHIM = b"lcw-ms-win-crt-math-l1-1-0.dll"
"""Of the same length: it replaces the other name in place."""
COMPLEX = re.compile(r"c(?P<name>real|imag|arg|abs|(?:sin|cos|tan)h?|exp|pow|sqrt|log)(?P<kind>[fl]?)")
TYPES = """\
#include <complex.h>
typedef struct { float r, i; } float_pair;  /* as Visual C++ passes complex numbers */
typedef struct { double r, i; } double_pair;
"""
GCC = "x86_64-w64-mingw32ucrt-gcc"


def apply(packages: Path, tree: Tree) -> int:
    """Let numpy in ``packages`` (``site-packages``) import the shim, made next to it; the number of changed files."""
    files = (*sorted((packages / "numpy").rglob("*.pyd")), *sorted((packages / "numpy.libs").glob("*.dll")))
    libraries = [file for file in files if RUNTIME in file.read_bytes()]
    functions = sorted({name for file in libraries for name in _imported(file)})
    with tempfile.TemporaryDirectory() as folder:
        source, exports = Path(folder, "shim.c"), Path(folder, "shim.def")
        own = {name: match for name in functions if (match := COMPLEX.fullmatch(name))}
        source.write_text(TYPES + "".join(_function(name, match) for name, match in own.items()), encoding="utf-8")
        lines = (f"  {name}={f'shim_{name}' if name in own else f'ucrtbase.{name}'}\n" for name in functions)
        exports.write_text(f"LIBRARY {SHIM.decode()}\nEXPORTS\n{''.join(lines)}", encoding="utf-8")
        shim = Path(folder, SHIM.decode())
        options = ("-O2", "-shared", "-static", "-s", "-o", str(shim), str(source), str(exports))
        processes.run(tree.command(GCC, *options))
        for file in libraries:
            shutil.copyfile(shim, file.parent / shim.name)  # Windows searches for it next to what imports it
            file.write_bytes(file.read_bytes().replace(RUNTIME, SHIM))
    return len(libraries)


def _imported(library: Path) -> set[str]:
    """The functions that a library imports from the C runtime's mathematics."""
    with pefile.PE(str(library), fast_load=True) as file:
        file.parse_data_directories([pefile.DIRECTORY_ENTRY["IMAGE_DIRECTORY_ENTRY_IMPORT"]])
        imports = [one for one in file.DIRECTORY_ENTRY_IMPORT if one.dll.lower() == RUNTIME]
        return {function.name.decode() for one in imports for function in one.imports}


def _function(name: str, match: re.Match[str]) -> str:
    """One function in C: it converts the numbers, and calls mingw's."""
    real, pair = ("float", "float_pair") if match["kind"] == "f" else ("double", "double_pair")
    call = f"c{match['name']}{'f' if match['kind'] == 'f' else ''}"
    z, w = (f"__builtin_complex({value}.r, {value}.i)" for value in "zw")
    if match["name"] in {"real", "imag", "arg", "abs"}:
        return f"{real} shim_{name}({pair} z) {{ return {call}({z}); }}\n"
    arguments, values = (f"{pair} z, {pair} w", f"{z}, {w}") if match["name"] == "pow" else (f"{pair} z", z)
    body = f"{real} complex c = {call}({values}); return ({pair}) {{ __real__ c, __imag__ c }};"
    return f"{pair} shim_{name}({arguments}) {{ {body} }}\n"
