"""The translator of PTX: what it refuses, by name and place, and how it divides a kernel into basic blocks."""

from __future__ import annotations

import re

import pytest

from build_config.testbed.emulated_device.instructions import FAMILIES, FORMS
from build_config.testbed.emulated_device.ptx_module import read_module
from build_config.testbed.emulated_device.ptx_source import PtxError
from build_config.testbed.emulated_device.translation import TranslatedKernel, translate

HEADER = ".version 9.0\n.target sm_89\n.address_size 64\n"
REGISTERS = """
.reg .pred %p<4>; .reg .b16 %h<4>; .reg .b32 %r<8>; .reg .f32 %f<4>; .reg .b64 %rd<4>; .reg .f64 %d<2>; .reg .s32 %s<2>;
"""


def kernel(text: str, *, rest: str = "", parameters: str = ".param .u64 p") -> TranslatedKernel:
    return translate(read_module(f"{HEADER}{rest}.entry k({parameters}) {{{REGISTERS}{text}}}", "a.ptx"), "k")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("frobnicate.b32 %r1, %r2;", "instruction frobnicate is not known (frobnicate.b32)"),
        ("add.s8 %r1, %r2, %r3;", "add.s8 is not among the known forms of add"),
        ("add.rm.f32 %f1, %f2, %f3;", "add.rm.f32 is not among the known forms of add"),
        ("add.s32.wide %r1, %r2, %r3;", "add.s32.wide is not among the known forms of add"),
        ("ld.global.v16.b32 {%r1}, [%rd1];", "ld.global.v16.b32 is not among the known forms of ld"),
        ("cvt.rzi.ftz.s32.f16 %r1, %h1;", "cvt.rzi.ftz.s32.f16 is not among the known forms of cvt"),
        ("cvt.f16.f32 %h1, %f1;", "cvt.f16.f32 is not among the known forms of cvt"),
        ("wgmma.fence.sync.aligned;", "instruction wgmma is not known (wgmma.fence.sync.aligned)"),
        ("activemask.b32 %r1;", "instruction activemask is not known (activemask.b32)"),
        ("add.s32 %r1, %r2;", "add.s32 with 2 operands is not known"),
        ("add.s32 %r1, %r2, %rd1;", "add.s32: expected a register of type .s32 here"),
        ("add.s32 %r1, %r2, %f1;", "add.s32: expected a register of type .s32 here"),
        ("add.f32 %f1, %s1, %f2;", "add.f32: expected a register of type .f32 here"),
        ("add.s32 %r1, %r2, !%r3;", "add.s32: expected a register of type .s32 here"),
        ("add.s32 1, %r2, %r3;", "add.s32: expected a register here"),
        ("add.f32 %f1, %f2, 1;", "add.f32: expected a value of type .f32 here"),
        ("add.f32 %f1, %f2, 1.0;", "add.f32: expected a value of type .f32 here"),
        ("selp.b32 %r1, %r2, %r3, !%p1;", "selp.b32: expected a register of type .pred here"),
        ("setp.lo.s32 %p1, %r1, %r2;", "setp.lo.s32 is not among the known forms of setp"),
        ("ld.global.u32 %r1, %rd1;", "ld.global.u32: expected an address in brackets here"),
        ("ld.global.u32 %r1, [%f1];", "ld.global.u32: expected a register with an address here"),
        ("ld.global.v2.u32 {%r1, %r2, %r3}, [%rd1];", "ld.global.v2.u32: expected a vector of 2 here"),
        ("ld.global.f32 %rd1, [%rd2];", ""),
        ("lop3.b32 %r1, %r2, %r3, %r4, %r5;", "lop3.b32: expected a constant here"),
        ("mov.u32 %r1, %envreg2;", "%envreg2 is not declared, or is a special register that is not known"),
        ("mov.u32 %r1, %clock;", "%clock is not declared, or is a special register that is not known"),
        ("mov.u32 %tid.x, %r1;", "mov.u32: expected a register of type .u32 here"),
        ("bra nowhere;", "nowhere is not declared, or is a special register that is not known"),
        ("bra %r1;", "%r1 is not a label of this function"),
        ("call.uni gone, (p);", "gone is not a function of this module"),
        (".reg .b32 %r1;", "%r1 is declared twice"),
        ("@%r1 ret;", "ret: expected a register of type .pred here"),
        (
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 %r1, %r2, %r3, %r4;",
            "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 is not among the known forms of mma",
        ),  # one opcode
    ],
)
def test_what_is_not_known_is_refused_by_name(text: str, what: str) -> None:
    if not what:
        kernel(f"{text} ret;")  # a wider register of untyped bits is allowed (9.4.1)
        return
    with pytest.raises(PtxError) as caught:
        kernel(f"\n{text} ret;")
    assert caught.value.what == what
    assert caught.value.position.line == 7


def test_names_of_a_scope_end_with_it() -> None:
    with pytest.raises(PtxError, match="a is not declared"):
        kernel("{ .reg .b32 a; mov.b32 a, 1; } mov.b32 %r1, a; ret;")


def test_two_scopes_have_registers_of_their_own() -> None:
    source = kernel("{ .reg .b32 a; mov.b32 a, 1; } { .reg .b64 a; mov.b64 a, 2; } ret;").source
    assert "uint32_t r_a = 0;" in source
    assert "uint64_t r_a_2 = 0;" in source


def test_a_kernel_has_the_layout_of_its_parameters() -> None:
    made = kernel("ret;", parameters=".param .u8 a, .param .align 8 .b8 b[12], .param .f32 c")
    assert "parameter_offsets[] = {0, 8, 20}" in made.source
    assert "parameter_sizes[] = {1, 12, 4}" in made.source
    assert ".parameter_bytes = 24" in made.source


def test_shared_memory_is_placed_once_and_ends_aligned() -> None:
    made = kernel(
        ".shared .align 16 .b8 mine[20]; mov.u32 %r1, mine; mov.u32 %r2, common; mov.u32 %r3, dynamic; ret;",
        rest=".shared .align 8 .f64 common;\n.extern .shared .align 16 .b8 dynamic[];\n",
    )
    assert "ptx_static_shared = 128 }" in made.source
    assert re.findall(r"block->shared \+ (.*?)\);", made.source) == [
        "UINT64_C(0)",
        "UINT64_C(24)",
        "(uint64_t)ptx_static_shared",
    ]


def test_only_the_variables_that_a_kernel_uses_are_defined() -> None:
    rest = ".global .align 4 .u16 used[3] = {1, 0xFFFF, -1};\n.global .b32 unused = 5;\n.const .f32 one = 0f3F800000;\n"
    source = kernel("mov.u64 %rd1, used; mov.u64 %rd2, one; ret;", rest=rest).source
    assert "static _Alignas(4) uint16_t g_used[3] = {1, 65535, 65535};" in source
    assert "static _Alignas(4) uint32_t g_one[1] = {1065353216};" in source
    assert "g_unused" not in source


def test_an_address_is_no_initial_value() -> None:
    with pytest.raises(PtxError, match=re.escape("a.ptx:4:22: an initial value that is no constant: 'other'")):
        kernel("mov.u64 %rd1, x; ret;", rest=".global .b64 x[1] = {other};\n")


def test_basic_blocks_begin_at_labels_after_branches_and_under_guards() -> None:
    made = kernel(
        """
        mov.u32 %r1, %tid.x;
        setp.eq.u32 %p1, %r1, 0;
        @%p1 mov.u32 %r2, 1;
        @%p1 mov.u32 %r3, 1;
        add.u32 %r4, %r2, %r3;
        @!%p1 bra LATER;
        add.u32 %r4, %r4, 1;
        LATER:
        @%p1 setp.ne.u32 %p1, %r1, 1;
        @%p1 add.u32 %r5, %r4, 1;
        ret;
        UNUSED:
        trap;
        """
    )
    counted = re.findall(r"^ +(?:if \((\w+)\) \{ )?thread->executed\[(\d+)\]\+\+;$", made.source, re.MULTILINE)
    assert [(made.lines[int(number)] - 6, guard) for guard, number in counted] == [
        (1, ""),
        (3, "r_p1"),
        (7, ""),
        (9, "r_p1"),
        (10, "r_p1"),
        (11, ""),
        (13, ""),
    ]
    assert ".basic_blocks = 7" in made.source
    assert "LATER" in made.source
    assert "UNUSED" not in made.source


def test_a_call_copies_arguments_and_results() -> None:
    helper = (
        ".func (.param .b32 r) twice (.param .b32 x) {"
        ".reg .b32 %a; ld.param.b32 %a, [x]; add.u32 %a, %a, %a; st.param.b32 [r], %a; ret; }"
    )
    call = (
        "{ .param .b32 x; st.param.b32 [x], %r1; .param .b32 y; call.uni (y), twice, (x); ld.param.b32 %r2, [y]; } ret;"
    )
    made = kernel(call, rest=helper)
    assert len(made.lines) == 2
    assert made.source.index("static void f_twice") < made.source.index("static void f_k")
    with pytest.raises(PtxError, match="called with other arguments"):
        kernel(call.replace("(x)", "(x, y)"), rest=helper)


def test_recursion_and_functions_of_others_are_refused() -> None:
    again = ".func again () { call.uni again; ret; }\n"
    with pytest.raises(PtxError, match="again calls itself, which is not supported"):
        kernel("call.uni again; ret;", rest=again)
    with pytest.raises(PtxError, match="malloc is only declared"):
        kernel("{ .param .b64 x; call.uni malloc, (x); } ret;", rest=".extern .func malloc (.param .b64 n);\n")
    assert (
        '"an assertion failed"'
        in kernel(
            "{ .param .b64 x; call.uni __assertfail, (x); } ret;", rest=".extern .func __assertfail (.param .b64 a);\n"
        ).source
    )


def test_every_form_cites_the_isa_and_no_opcode_has_two_meanings() -> None:
    for family in FAMILIES:
        for form in family.FORMS:
            assert re.match(r"9\.7\.\d+(\.\d+)* ", form.section), form
            form.pattern()
    for root, forms in FORMS.items():
        meanings = [(form.syntax, form.operands, tuple(sorted(form.choices.items()))) for form in forms]
        assert len(meanings) == len(set(meanings)), root
