"""Variables of a module (``.global``, ``.const``) as C arrays with their initial values (PTX ISA 9.0, 5.4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.ptx_names import C_TYPES, c_name
from build_config.testbed.emulated_device.ptx_parser import constant
from build_config.testbed.emulated_device.ptx_tree import TYPE_BYTES, Integer, Variable

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.ptx_module import Module


def definition(module: Module, variable: Variable) -> str:
    """The C definition; raises ``PtxError`` for initial values that are not constants (addresses)."""
    element = TYPE_BYTES[variable.type]
    values = ", ".join(str(value) for value in _initial(module, variable))
    name = f"{c_name('g', variable.name)}[{max(variable.size // element, 1)}]"
    return f"static _Alignas({variable.alignment}) {C_TYPES[element]} {name} = {{{values or 0}}};\n"


def _initial(module: Module, variable: Variable) -> list[int]:
    if variable.initial is None:
        return []
    mask = (1 << 8 * TYPE_BYTES[variable.type]) - 1
    values = []
    negative = False
    for token in module.source.tokens(*variable.initial):
        if token.kind == "number":
            value = constant(token.text, token.offset)
            if isinstance(value, Integer):
                values.append((-value.value if negative else value.value) & mask)
            elif value.width == 8 * TYPE_BYTES[variable.type]:
                values.append(value.bits)
            else:
                raise module.source.error(token.offset, f"{token.text} is no value of type .{variable.type}")
        elif token.text not in (",", "{", "}", "-"):
            raise module.source.error(token.offset, f"an initial value that is no constant: {token.text!r}")
        negative = token.text == "-"
    return values
