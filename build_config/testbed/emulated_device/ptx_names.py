"""Names: what a name in a function's body stands for, and what it is called in C.

PTX ISA 9.0, chapter 5 (State Spaces, Types, and Variables) and chapter 10 (Special Registers).
"""

from __future__ import annotations

import re
from collections import ChainMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.ptx_tree import TYPE_BYTES, BranchTargets, Label, Registers, Variable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, MutableMapping

    from build_config.testbed.emulated_device.ptx_module import Module
    from build_config.testbed.emulated_device.ptx_source import PtxError
    from build_config.testbed.emulated_device.ptx_tree import Function, Name, Statement


@dataclass(frozen=True, slots=True)
class Register:
    """A register: its type and its C variable."""

    type: str
    c: str


@dataclass(frozen=True, slots=True)
class Special:
    """A special register: a C expression of ``bits``."""

    bits: int
    c: str


@dataclass(frozen=True, slots=True)
class Memory:
    """A variable: the C expression of its address."""

    c: str


@dataclass(frozen=True, slots=True)
class Place:
    """A label."""

    c: str


Symbol = Register | Special | Memory | Place | tuple[str, ...]
"""A tuple is a table of branch targets."""

AXES = "xyz"
SPECIAL: Mapping[str, Special] = {
    **{f"%tid.{axis}": Special(32, f"thread->tid[{number}]") for number, axis in enumerate(AXES)},
    **{f"%ntid.{axis}": Special(32, f"thread->block->ntid[{number}]") for number, axis in enumerate(AXES)},
    **{f"%ctaid.{axis}": Special(32, f"thread->block->ctaid[{number}]") for number, axis in enumerate(AXES)},
    **{f"%nctaid.{axis}": Special(32, f"thread->block->nctaid[{number}]") for number, axis in enumerate(AXES)},
    "%laneid": Special(32, "thread->lane"),
    "%warpid": Special(32, "thread->warp"),
    "%lanemask_eq": Special(32, "(UINT32_C(1) << thread->lane)"),
    "%lanemask_lt": Special(32, "((UINT32_C(1) << thread->lane) - 1)"),
    "%lanemask_le": Special(32, "((UINT32_C(2) << thread->lane) - 1)"),
    "%lanemask_gt": Special(32, "~((UINT32_C(2) << thread->lane) - 1)"),
    "%lanemask_ge": Special(32, "~((UINT32_C(1) << thread->lane) - 1)"),
    "%dynamic_smem_size": Special(32, "thread->block->dynamic_shared"),
    "WARP_SZ": Special(32, "UINT32_C(32)"),
}
"""Special registers (chapter 10) that do not depend on the machine's schedule, clock or number of multiprocessors."""

C_TYPES = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


def c_name(prefix: str, name: str) -> str:
    """A C name for a PTX name."""
    return f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', name.lstrip('%'))}"


@dataclass(slots=True)
class SharedMemory:
    """Where the static shared variables of a kernel and of the functions that it calls are in the block's memory."""

    offsets: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def place(self, key: str, variable: Variable) -> str:
        """The C expression of the address of ``variable``; one key is placed once."""
        if variable.external:
            return "(thread->block->shared + (uint64_t)ptx_static_shared)"
        if key not in self.offsets:
            self.bytes += -self.bytes % variable.alignment
            self.offsets[key] = self.bytes
            self.bytes += variable.size
        return f"(thread->block->shared + UINT64_C({self.offsets[key]}))"


class Names:
    """The names of one function: parameters, the module's variables, and what its scopes declare.

    ``registers`` are the C variables to be declared, by type; ``arrays`` the local variables by C name; ``used`` the
    module's variables that the function names.
    """

    def __init__(self, module: Module, function: Function, shared: SharedMemory) -> None:
        self._module = module
        self._function = function
        self._shared = shared
        self._scopes: ChainMap[str, Symbol] = ChainMap(dict(SPECIAL))
        self._c_names: set[str] = set()
        self.registers: dict[str, str] = {}
        self.arrays: dict[str, Variable] = {}
        self.used: dict[str, Variable] = {}
        for offset, parameter in layout(function.parameters)[0]:
            self._declare(parameter.name, Memory(f"((uint64_t)(uintptr_t)parameters + {offset})"), parameter.offset)
        for offset, result in layout(function.results)[0]:
            self._declare(result.name, Memory(f"((uint64_t)(uintptr_t)results + {offset})"), result.offset)

    def error(self, offset: int, what: str) -> PtxError:
        """The error ``what`` at ``offset`` of the module's file."""
        return self._module.source.error(offset, what)

    def enter(self, statements: Iterable[Statement]) -> None:
        """Begin a scope and declare all names of its statements: a branch can go to a label that follows."""
        self._scopes = self._scopes.new_child()
        label = ""
        tables: dict[str, BranchTargets] = {}
        for statement in statements:
            if isinstance(statement, Registers):
                for name in statement.names:
                    register = Register(statement.type, self._unique("r", name))
                    self._declare(name, register, statement.offset)
            elif isinstance(statement, Variable):
                self._declare(statement.name, self._variable(statement), statement.offset)
            elif isinstance(statement, Label):
                self._declare(statement.name, Place(self._unique("l", statement.name)), statement.offset)
                label = statement.name
            elif isinstance(statement, BranchTargets):
                tables[label] = statement
        for label, table in tables.items():
            self._scopes.maps[0][label] = tuple(self.place(name) for name in table.labels)

    def leave(self) -> None:
        """End the scope that was entered last."""
        self._scopes = self._scopes.parents

    def find(self, name: Name) -> Symbol:
        """What ``name`` stands for; raises ``PtxError`` if nothing declares it."""
        symbol = self._scopes.get(name.text)
        if symbol is None:
            symbol = self._of_module(name)
        if isinstance(symbol, Register):
            self.registers[symbol.c] = symbol.type
        return symbol

    def place(self, name: Name) -> str:
        """The C label of ``name``; raises ``PtxError`` if it is no label."""
        symbol = self.find(name)
        if not isinstance(symbol, Place):
            raise self.error(name.offset, f"{name.text} is not a label of this function")
        return symbol.c

    def _declare(self, name: str, symbol: Symbol, offset: int) -> None:
        scope: MutableMapping[str, Symbol] = self._scopes.maps[0]
        if name in scope:
            raise self.error(offset, f"{name} is declared twice")
        scope[name] = symbol

    def _unique(self, prefix: str, name: str) -> str:
        """Two scopes can declare the same name."""
        c = base = c_name(prefix, name)
        number = 1
        while c in self._c_names:
            number += 1
            c = f"{base}_{number}"
        self._c_names.add(c)
        return c

    def _variable(self, variable: Variable) -> Memory:
        if variable.space in ("local", "param"):
            c = self._unique("m", variable.name)
            self.arrays[c] = variable
            return Memory(f"((uint64_t)(uintptr_t){c})")
        if variable.space == "shared":
            return Memory(self._shared.place(f"{self._function.name} {variable.name}", variable))
        raise self.error(variable.offset, f"a variable in .{variable.space} within a function is not supported")

    def _of_module(self, name: Name) -> Memory:
        variable = self._module.variables.get(name.text)
        if variable is None:
            raise self.error(name.offset, f"{name.text} is not declared, or is a special register that is not known")
        if variable.space == "shared":
            return Memory(self._shared.place(name.text, variable))
        if variable.external:
            raise self.error(name.offset, f"the variable {name.text} is defined in another module")
        self.used[name.text] = variable
        return Memory(f"((uint64_t)(uintptr_t){c_name('g', name.text)})")


def layout(variables: tuple[Variable, ...]) -> tuple[tuple[tuple[int, Variable], ...], int]:
    """Where each parameter is, as in a C structure, and the size of all (7.1, 5.1.6)."""
    placed = []
    offset = 0
    for variable in variables:
        offset += -offset % variable.alignment
        placed.append((offset, variable))
        offset += variable.size
    return tuple(placed), offset


def width(type_: str) -> int:
    """The bits of a type."""
    return 8 * TYPE_BYTES[type_]
