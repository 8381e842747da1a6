"""The parser of PTX: what it makes of a text, and where it says that something is wrong."""

from __future__ import annotations

import pytest

from build_config.testbed.emulated_device.ptx_module import Module, read_module
from build_config.testbed.emulated_device.ptx_parser import parse_body
from build_config.testbed.emulated_device.ptx_source import PtxError
from build_config.testbed.emulated_device.ptx_tree import (
    Address,
    Arguments,
    BranchTargets,
    Instruction,
    Integer,
    Label,
    Name,
    Pair,
    Real,
    Registers,
    Scope,
    Statement,
    Sum,
    Variable,
    Vector,
)

HEADER = ".version 9.0\n.target sm_89\n.address_size 64\n"


def module(text: str) -> Module:
    return read_module(HEADER + text, "a.ptx")


def body(text: str) -> tuple[Statement, ...]:
    parsed = module(f".entry k() {{{text}}}")
    function = parsed.functions["k"]
    assert function.body is not None
    return parse_body(parsed.source, function.body)


def instruction(text: str) -> Instruction:
    (statement,) = body(text)
    assert isinstance(statement, Instruction)
    return statement


def texts(statement: Instruction) -> list[str]:
    return [operand.text if isinstance(operand, Name) else type(operand).__name__ for operand in statement.operands]


def test_a_module_has_its_functions_and_variables_in_order() -> None:
    parsed = module(
        """
        .extern .func (.param .b32 retval) vprintf (.param .b64 a, .param .b64 b);
        .global .align 8 .b8 table[4] = {1, 2, 3, 4};
        .extern .shared .align 16 .b8 dynamic[];
        .const .f32 one = 0f3F800000;
        .func (.param .b32 result) helper (.param .b64 x) { ret; }
        .visible .entry second(.param .u64 p, .param .align 8 .b8 q[24]) .maxntid 32, 4, 1 .minnctapersm 2 { ret; }
        .weak .entry first() { ret; }
        """
    )
    assert [name for name, one in parsed.functions.items() if one.kernel] == ["second", "first"]
    assert parsed.functions["vprintf"].body is None
    assert parsed.functions["second"].max_threads == 128
    assert [(one.name, one.size, one.alignment) for one in parsed.functions["second"].parameters] == [
        ("p", 8, 8),
        ("q", 24, 8),
    ]
    assert [one.name for one in parsed.functions["helper"].results] == ["result"]
    assert {name: (one.space, one.size, one.external) for name, one in parsed.variables.items()} == {
        "table": ("global", 4, False),
        "dynamic": ("shared", 0, True),
        "one": ("const", 4, False),
    }


def test_braces_in_comments_and_strings_do_not_end_a_function() -> None:
    parsed = module('.entry a() { // }\n /* } */ .pragma "}"; ret; }\n.entry b() { ret; }')
    assert list(parsed.functions) == ["a", "b"]


def test_statements() -> None:
    found = body(
        """
        .reg .pred %p<3>, q;
        .local .align 16 .b8 depot[8];
        .shared .align 4 .v2 .f32 pair;
        $L__BB0_1:
        { .reg .b16 low; cvt.rn.f16.f32 low, %f1; }
        table: .branchtargets $L__BB0_1, $L__BB0_2;
        .pragma "nounroll";
        .loc 1 24 3
        ret;
        """
    )
    registers, depot, pair, label, scope, table, targets, end = found
    assert isinstance(registers, Registers)
    assert registers.names == ("%p0", "%p1", "%p2", "q")
    assert isinstance(depot, Variable)
    assert (depot.space, depot.size, depot.alignment) == ("local", 8, 16)
    assert isinstance(pair, Variable)
    assert pair.size == 8
    assert isinstance(label, Label)
    assert isinstance(scope, Scope)
    assert [type(statement) for statement in scope.statements] == [Registers, Instruction]
    assert isinstance(table, Label)
    assert isinstance(targets, BranchTargets)
    assert [one.text for one in targets.labels] == ["$L__BB0_1", "$L__BB0_2"]
    assert isinstance(end, Instruction)


def test_operands() -> None:
    found = instruction(
        "@!%p1 op.x.L2::128B %r1|%p2, {%a, _}, [%rd1+-8], [4], sym+8, -1, 0x1FU, 017, 0b11, (a, b), !%p3;"
    )
    assert found.guard is not None
    assert (found.guard.text, found.guard.negated) == ("%p1", True)
    assert found.opcode == "op.x.L2::128B"
    pair, vector, address, absolute, sum_, *numbers, arguments, negated = found.operands
    assert isinstance(pair, Pair)
    assert (pair.first.text, pair.second.text) == ("%r1", "%p2")
    assert isinstance(vector, Vector)
    assert [one.text for one in vector.elements if isinstance(one, Name)] == ["%a", "_"]
    assert isinstance(address, Address)
    assert address.addend == -8
    assert isinstance(absolute, Address)
    assert isinstance(absolute.base, Integer)
    assert isinstance(sum_, Sum)
    assert (sum_.base.text, sum_.addend) == ("sym", 8)
    assert [one.value for one in numbers if isinstance(one, Integer)] == [-1, 31, 15, 3]
    assert isinstance(arguments, Arguments)
    assert isinstance(negated, Name)
    assert negated.negated


@pytest.mark.parametrize(
    ("text", "bits", "width"),
    [("0f3F800000", 0x3F800000, 32), ("0d3FF0000000000000", 0x3FF << 52, 64), ("1.5", 0x3FF8 << 48, 64)],
)
def test_floating_point_constants(text: str, bits: int, width: int) -> None:
    (_, value) = instruction(f"mov.f32 %f1, {text};").operands
    assert isinstance(value, Real)
    assert (value.bits, value.width) == (bits, width)


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("add.s32 %r1, %r2", 4, 28, "the text ends within a statement"),
        ("add.s32 %r1 %r2;", 4, 25, "expected ',' or ';', found '%r2'"),
        ("\n  ld.u32 %r1, [0f00000000];", 5, 16, "expected an integer, found '0f00000000'"),
        ("mov.u32 %r1, ?;", 4, 26, "'?' begins no token"),
        (".reg .b31 %r1;", 4, 18, "type .b31 is not known"),
        (".alias a, b;", 4, 13, "directive .alias is not known"),
        ("] ;", 4, 13, "expected a statement, found ']'"),
        ("add.s32 %r1, <;", 4, 26, "expected an operand, found '<'"),
    ],
)
def test_an_error_says_where_it_is(text: str, line: int, column: int, what: str) -> None:
    with pytest.raises(PtxError) as caught:
        body(text)
    assert caught.value.what == what
    assert caught.value.position == ("a.ptx", line, column)
    assert str(caught.value) == f"a.ptx:{line}:{column}: {what}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (".entry k() { ret;", "this brace is never closed"),
        (".entry k() .cluster { ret; }", "directive .cluster of a function is not known"),
        (".global .b32 x", "the text ends within a declaration"),
        (".tex .u64 t;", "expected '.const' or '.global' or '.local' or '.param' or '.shared', found '.tex'"),
    ],
)
def test_what_cannot_be_a_part_of_a_module(text: str, what: str) -> None:
    with pytest.raises(PtxError) as caught:
        module(text)
    assert caught.value.what == what


def test_addresses_have_64_bits() -> None:
    with pytest.raises(PtxError, match=r"a\.ptx:2:1: addresses of 32 bits are not supported"):
        read_module(".version 9.0\n.address_size 32\n", "a.ptx")
