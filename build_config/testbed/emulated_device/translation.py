"""The translator: a kernel of a PTX file to one C function and those that it calls.

Text -> tokens (``ptx_source``) -> tree (``ptx_parser``) -> checked instructions (``ptx_check``, with the tables in
``instructions/``) -> C (here). The C includes ``ptx_runtime.h`` (threads and how they meet), ``ptx_instructions.h``
(arithmetic) and ``ptx_warp.h`` (what a warp does together), and is compiled with ``CFLAGS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from build_config.testbed.emulated_device import ptx_data
from build_config.testbed.emulated_device.instructions import control
from build_config.testbed.emulated_device.instructions.form import Operand
from build_config.testbed.emulated_device.ptx_check import Checked, Target, checked
from build_config.testbed.emulated_device.ptx_module import Module
from build_config.testbed.emulated_device.ptx_names import C_TYPES, Names, SharedMemory, c_name, layout, width
from build_config.testbed.emulated_device.ptx_parser import parse_body
from build_config.testbed.emulated_device.ptx_tree import Function, Variable

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Use

CFLAGS = ("-std=gnu11", "-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing")
"""Without these the C does not compute what the PTX says: no fused operations that PTX has not, wrapping, any type."""
SHARED_ALIGNMENT = 128
"""Dynamic shared memory begins at a multiple of this behind the static variables."""
_CALL_PARTS = 3


@dataclass(frozen=True, slots=True)
class BasicBlock:
    """Instructions of which all or none are executed, in lines ``first`` to ``last`` of the PTX file.

    ``guard`` is the predicate of instructions that are executed under one, in C; such a run counts as a block.
    """

    function: str
    first: int
    last: int
    guard: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedKernel:
    """A kernel as C (``source``, a whole file that defines ``ptx_image``).

    ``blocks`` are in the order of the counters ``thread->executed``; ``opcodes`` says how often each opcode is there.
    """

    name: str
    source: str
    blocks: tuple[BasicBlock, ...]
    opcodes: Mapping[str, int]
    static_shared: int


def translate(module: Module, name: str) -> TranslatedKernel:
    """The kernel ``name`` of a module as C; raises ``PtxError`` for whatever is not known in it or what it calls."""
    translator = _Translator(module)
    kernel = module.functions[name]
    translator.function(kernel)
    shared = translator.shared.bytes
    static_shared = shared + -shared % SHARED_ALIGNMENT
    parts = (
        f"// {name}\n",
        '#pragma GCC diagnostic ignored "-Wunused-but-set-variable"  // a register need not be read\n',
        f"enum {{ ptx_static_shared = {static_shared} }};\n",
        '#include "ptx_runtime.h"\n#include "ptx_instructions.h"\n#include "ptx_warp.h"\n\n',
        *(ptx_data.definition(module, variable) for variable in translator.used.values()),
        *(f"{_signature(module.functions[called])};\n" for called in translator.code if called != name),
        *(translator.code[called] for called in sorted(translator.code, key=lambda called: called == name)),
        _image(kernel, translator.blocks, translator.used),
    )
    return TranslatedKernel(
        name=name,
        source="".join(parts),
        blocks=tuple(translator.blocks),
        opcodes=dict(translator.opcodes),
        static_shared=static_shared,
    )


def _signature(function: Function) -> str:
    name = c_name("f", function.name)
    if function.kernel:
        return f"static void {name}(struct ptx_thread *thread, const uint8_t *parameters)"
    return f"static void {name}(struct ptx_thread *thread, const uint8_t *parameters, uint8_t *results)"


def _image(kernel: Function, blocks: list[BasicBlock], used: Mapping[str, Variable]) -> str:
    """What the launcher needs to know of the kernel."""
    placed, size = layout(kernel.parameters)
    variables = ", ".join(
        f'{{"{variable.name}", {c_name("g", variable.name)}, sizeof {c_name("g", variable.name)}}}'
        for variable in used.values()
    )
    tables = (
        f"static const uint32_t parameter_offsets[] = {{{', '.join(str(offset) for offset, _ in placed) or 0}}};\n",
        f"static const uint32_t parameter_sizes[] = {{{', '.join(str(one.size) for _, one in placed) or 0}}};\n",
        f"static const uint32_t lines[] = {{{', '.join(str(block.first) for block in blocks)}}};\n",
        f"static const struct ptx_variable variable[] = {{{variables or '{0, 0, 0}'}}};\n",
    )
    fields = {
        "name": f'"{kernel.name}"',
        "run": c_name("f", kernel.name),
        "parameter_offsets": "parameter_offsets",
        "parameter_sizes": "parameter_sizes",
        "parameters": len(placed),
        "parameter_bytes": size,
        "static_shared": "ptx_static_shared",
        "max_threads": kernel.max_threads,
        "basic_blocks": len(blocks),
        "lines": "lines",
        "variables": len(used),
        "variable": "variable",
    }
    initial = "".join(f"    .{name} = {value},\n" for name, value in fields.items())
    return f"{''.join(tables)}const struct ptx_image ptx_image = {{\n{initial}}};\n"


@dataclass(slots=True)
class _Translator:
    """Translates functions of one module; ``code`` is their C by name."""

    module: Module
    shared: SharedMemory = field(default_factory=SharedMemory)
    code: dict[str, str] = field(default_factory=dict)
    used: dict[str, Variable] = field(default_factory=dict)
    blocks: list[BasicBlock] = field(default_factory=list)
    opcodes: Counter[str] = field(default_factory=Counter)

    def function(self, function: Function) -> None:
        """Translate ``function`` and, before it, those that it calls."""
        if function.body is None:
            raise self.module.source.error(function.offset, f"{function.name} is only declared")
        self.code[function.name] = ""  # its place; recursion ends here
        names = Names(self.module, function, self.shared)
        items = tuple(checked(parse_body(self.module.source, function.body), names))
        body = _Body(self, function, names).statements(items)
        declared: dict[str, list[str]] = {}
        for register, type_ in names.registers.items():
            declared.setdefault("bool" if type_ == "pred" else C_TYPES[width(type_) // 8], []).append(f"{register} = 0")
        lines = (
            *(f"    {type_} {', '.join(registers)};\n" for type_, registers in declared.items()),
            *(
                f"    _Alignas({max(variable.alignment, 16)}) uint8_t {name}[{max(variable.size, 1)}];\n"
                for name, variable in names.arrays.items()
            ),
            *(f"    {line}\n" for line in body),
        )
        self.used |= names.used
        self.code[function.name] = f"{_signature(function)} {{\n    (void)parameters;\n{''.join(lines)}}}\n\n"


@dataclass(slots=True)
class _Body:
    """Writes the statements of one function and divides them into basic blocks."""

    translator: _Translator
    function: Function
    names: Names
    lines: list[str] = field(default_factory=list)
    _open: int | None = None
    """The number of the block that the next instruction without a guard continues."""
    _guard: str = ""
    """The condition of the block that is under one; its number is the last."""

    def statements(self, items: tuple[Checked | Target, ...]) -> list[str]:
        """The C of all instructions. A guarded instruction other than a branch is a block under its condition."""
        branches = {name for item in items if isinstance(item, Checked) for name in self._targets(item)}
        for item in items:
            if isinstance(item, Target):
                self._close_guard()
                self._open = None
                if item.c in branches:
                    self.lines.append(f"{item.c}:;")
                continue
            self.translator.opcodes[item.opcode] += 1
            root = item.opcode.partition(".")[0]
            ends = root in control.ENDS
            if self._guard and (ends or item.guard != self._guard):
                self._close_guard()
            self._count(item, alone=bool(item.guard) and not ends)
            code = self._call(item) if root == "call" else item.form.emit(item.use)
            self.lines.append(f"if ({item.guard}) {{ {code} }}" if item.guard and ends else code)
            if self._guard and self._changes_guard(item.use):
                self._close_guard()
            if ends:
                self._open = None
        self._close_guard()
        return self.lines

    @staticmethod
    def _targets(item: Checked) -> tuple[str, ...]:
        """The labels to which an instruction can go."""
        root = item.opcode.partition(".")[0]
        if root == "bra":
            return (item.use.operands[0].text,)
        return item.use.operands[1].elements if root == "brx" else ()

    def _count(self, item: Checked, *, alone: bool) -> None:
        """Begin a block in front of ``item`` if it needs one, else extend the current one."""
        blocks = self.translator.blocks
        line = self.translator.module.source.line(item.offset)
        number = (len(blocks) - 1 if self._guard else None) if alone else self._open
        if number is not None:
            block = blocks[number]
            blocks[number] = BasicBlock(block.function, block.first, line, block.guard)
            return
        condition = f"if ({item.guard}) {{ " if alone else ""
        self.lines.append(f"{condition}thread->executed[{len(blocks)}]++;")
        if alone:
            self._guard = item.guard
        else:
            self._open = len(blocks)
        blocks.append(BasicBlock(self.function.name, line, line, item.guard if alone else ""))

    def _close_guard(self) -> None:
        if self._guard:
            self.lines.append("}")
            self._guard = ""

    def _changes_guard(self, use: Use) -> bool:
        """Whether an instruction writes the predicate under which it is executed."""
        target = use.operands[0] if use.operands else None
        return target is not None and self._guard.lstrip("!") in (target.text, *target.elements)

    def _call(self, item: Checked) -> str:
        """``call``: copy the arguments as the callee lays them out, and the results back."""
        none = Operand("")
        operands = item.use.operands
        results, name, arguments = operands if len(operands) == _CALL_PARTS else (none, *operands, none)[:_CALL_PARTS]
        called = self.translator.module.functions.get(name.text)
        if called is None:
            raise self.names.error(item.offset, f"{name.text} is not a function of this module")
        if called.body is None:
            return self._outside(item, called, results.elements)
        if called.name not in self.translator.code:
            self.translator.function(called)
        elif not self.translator.code[called.name]:
            raise self.names.error(item.offset, f"{name.text} calls itself, which is not supported")
        placed, size = layout(called.parameters)
        placed_results, result_size = layout(called.results)
        if len(placed) != len(arguments.elements) or len(placed_results) != len(results.elements):
            raise self.names.error(item.offset, f"{name.text} is called with other arguments than it declares")
        code = [f"_Alignas(16) uint8_t given[{size + 1}], taken[{result_size + 1}];"]
        for (offset, variable), argument in zip(placed, arguments.elements, strict=True):
            code.append(f"memcpy(given + {offset}, (const void *)(uintptr_t){argument}, {variable.size});")
        code.append(f"{c_name('f', called.name)}(thread, given, taken);")
        for (offset, variable), result in zip(placed_results, results.elements, strict=True):
            code.append(f"memcpy((void *)(uintptr_t){result}, taken + {offset}, {variable.size});")
        return f"{{ {' '.join(code)} }}"

    def _outside(self, item: Checked, called: Function, results: tuple[str, ...]) -> str:
        """Functions of CUDA's device runtime: only those that end the launch or whose effect is not wanted."""
        if called.name == "__assertfail":
            return 'ptx_trap(thread, "an assertion failed");'
        if called.name == "vprintf":  # prints nothing, and says so: the number of printed arguments is 0
            return f"*(uint32_t *)(uintptr_t){results[0]} = 0;" if results else ";"
        raise self.names.error(item.offset, f"{called.name} is only declared")
