"""The translator: a kernel of a PTX file to one C function and those that it calls.

Text -> tokens (``ptx_source``) -> tree (``ptx_parser``) -> checked instructions (``ptx_check``, with the tables in
``instructions/``) -> C (here). The C includes ``ptx_runtime.h`` (threads and how they meet), ``ptx_instructions.h``
(arithmetic) and ``ptx_warp.h`` (what a warp does together), and is compiled with ``CFLAGS``.
"""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslatedKernel:
    """A kernel as C (``source``, a whole file that defines ``ptx_image``).

    ``lines`` are those in the PTX file where its basic blocks begin: instructions of which a thread executes all or
    none. A run of instructions under one predicate is a block, too. The counters ``thread->executed`` have this order.
    """

    name: str
    source: str
    lines: tuple[int, ...]


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
        _image(kernel, translator.lines),
    )
    return TranslatedKernel(name=name, source="".join(parts), lines=tuple(translator.lines))


def _signature(function: Function) -> str:
    name = c_name("f", function.name)
    if function.kernel:
        return f"static void {name}(struct ptx_thread *thread, const uint8_t *parameters)"
    return f"static void {name}(struct ptx_thread *thread, const uint8_t *parameters, uint8_t *results)"


def _image(kernel: Function, lines: list[int]) -> str:
    """What the launcher needs to know of the kernel."""
    placed, size = layout(kernel.parameters)
    tables = (
        f"static const uint32_t parameter_offsets[] = {{{', '.join(str(offset) for offset, _ in placed) or 0}}};\n",
        f"static const uint32_t parameter_sizes[] = {{{', '.join(str(one.size) for _, one in placed) or 0}}};\n",
        f"static const uint32_t lines[] = {{{', '.join(map(str, lines))}}};\n",
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
        "basic_blocks": len(lines),
        "lines": "lines",
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
    lines: list[int] = field(default_factory=list)
    """Where the basic blocks begin."""

    def function(self, function: Function) -> None:
        """Translate ``function`` and, before it, those that it calls."""
        if function.body is None:
            raise self.module.source.error(function.offset, f"{function.name} is only declared")
        self.code[function.name] = ""  # its place; recursion ends here
        names = Names(self.module, function, self.shared)
        items = tuple(checked(parse_body(self.module.source, function.body), names))
        body = _Body(self, names).statements(items)
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
    names: Names
    lines: list[str] = field(default_factory=list)
    _open: bool = False
    """Whether the next instruction without a guard continues a block."""
    _guard: str = ""
    """The condition of the open block that is under one."""

    def statements(self, items: tuple[Checked | Target, ...]) -> list[str]:
        """The C of all instructions. A guarded instruction other than a branch is a block under its condition."""
        branches = {name for item in items if isinstance(item, Checked) for name in self._targets(item)}
        for item in items:
            if isinstance(item, Target):
                self._close_guard()
                self._open = False
                if item.c in branches:
                    self.lines.append(f"{item.c}:;")
                continue
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
                self._open = False
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
        """Begin a block in front of ``item`` if it does not continue one."""
        if self._guard if alone else self._open:
            return
        begins = self.translator.lines
        condition = f"if ({item.guard}) {{ " if alone else ""
        self.lines.append(f"{condition}thread->executed[{len(begins)}]++;")
        begins.append(self.translator.module.source.line(item.offset))
        if alone:
            self._guard = item.guard
        else:
            self._open = True

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
