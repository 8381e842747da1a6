"""Comparison and selection, also of f16 and bf16 (PTX ISA 9.0, 9.7.6 and 9.7.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import joined, table

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Use

ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
FLOAT_COMPARISONS = "eq ne lt le gt ge equ neu ltu leu gtu geu num nan"


def _comparison(use: Use, first: str, second: str) -> str:
    compare, type_ = use["cmp"], use["type"]
    if type_ in ("f32", "f64", "f16", "bf16"):
        return f"ptx_{compare}{use['ftz'] and '_ftz'}_{type_}({first}, {second})"
    sign = "" if type_[0] == "s" and compare not in UNSIGNED else "u"
    cast = f"({sign}int{use['bits']}_t)"
    return f"({cast}{first} {(ORDERED | UNSIGNED)[compare]} {cast}{second})"


def _combined(use: Use, comparison: str, other: str) -> str:
    match use["bool"]:
        case "and":
            return f"({comparison} && {other})"
        case "or":
            return f"({comparison} || {other})"
        case "xor":
            return f"({comparison} != ({other}))"
    return comparison


def _both(use: Use, first: str, second: str) -> str:
    """``p|q`` gets ``first`` and ``second``, each combined with the third source if the instruction has one."""
    target, _, _, other = use.operands
    results = ((target.elements or (target.text,))[0], first), (target.elements[1] if target.elements else "", second)
    given = " ".join(f"{name} = {_combined(use, value, 'c')};" for name, value in results if name)
    return f"const bool c = {other.text or 'false'}; (void)c; {given}"


def _setp(use: Use) -> str:
    """``setp``: with ``p|q``, q gets the opposite comparison."""
    target, first, second, other = use.operands
    comparison = _comparison(use, first.text, second.text)
    if not target.elements:
        return use.assign(_combined(use, comparison, other.text))
    return f"{{ const bool is = {comparison}; {_both(use, 'is', '!is')} }}"


def _halves(use: Use) -> tuple[str, str]:
    """The comparisons of the lower and of the upper elements of vectors of two."""
    _, first, second, *_ = use.operands
    function = f"ptx_{use['cmp']}{use['ftz'] and '_ftz'}_{use['pair'].removesuffix('x2')}"
    lower = f"{function}((uint16_t){first.text}, (uint16_t){second.text})"
    return lower, f"{function}((uint16_t)({first.text} >> 16), (uint16_t)({second.text} >> 16))"


def _setp_of_two(use: Use) -> str:
    """``setp`` of vectors of two: p is for the lower elements, q for the upper ones."""
    lower, upper = _halves(use)
    return f"{{ const bool low = {lower}, high = {upper}; (void)high, (void)low; {_both(use, 'low', 'high')} }}"


def _set(use: Use) -> str:
    _, first, second = use.operands
    true = {"f32": "UINT32_C(0x3f800000)", "u32": "UINT32_MAX", "s32": "UINT32_MAX", "f16": "0x3c00", "bf16": "0x3f80"}
    result = true.get(use["result"], "0xffff")
    return use.assign(f"({_comparison(use, first.text, second.text)} ? {result} : 0)")


def _set_of_two(use: Use) -> str:
    true = {"f16x2": "0x3c00", "bf16x2": "0x3f80"}.get(use["result"], "0xffff")
    lower, upper = _halves(use)
    return use.assign(f"({lower} ? UINT32_C({true}) : 0) | ({upper} ? UINT32_C({true}) << 16 : 0)")


def _selp(use: Use) -> str:
    _, first, second, condition = use.operands
    return use.assign(f"({condition.text} ? {first.text} : {second.text})")


def _slct(use: Use) -> str:
    _, first, second, condition = use.operands
    return use.assign(f"((int32_t){condition.text} >= 0 ? {first.text} : {second.text})")


_COMPARISON = "9.7.6 Comparison and Selection Instructions"
_HALF_COMPARISON = "9.7.7 Half Precision Comparison Instructions"


def _setp_table(section: str, cmp: str, type_: str, *, flag: str = "") -> tuple[Form, ...]:
    return table(
        section,
        (f"setp.<cmp>{flag}.<type>", "=pred|pred {type} {type} ?!pred", _setp),
        (f"setp.<cmp>.<bool>{flag}.<type>", "=pred|pred {type} {type} !pred", _setp),
        cmp=cmp,
        bool="and or xor",
        type=type_,
    )


def _pair_table(type_: str, *, flag: str = "") -> tuple[Form, ...]:
    """Comparisons of vectors of two numbers of a type, and ``set`` of one."""
    return table(
        _HALF_COMPARISON,
        (f"setp.<cmp>{flag}.<pair>", "=pred|pred {pair} {pair} ?!pred", _setp_of_two),
        (f"setp.<cmp>.<bool>{flag}.<pair>", "=pred|pred {pair} {pair} !pred", _setp_of_two),
        (f"set.<cmp>{flag}.<result>.<type>", "={result} {type} {type}", _set),
        (f"set.<cmp>{flag}.<result>.<pair>", "={pair} {pair} {pair}", _set_of_two),
        cmp=FLOAT_COMPARISONS,
        bool="and or xor",
        type=type_,
        pair=f"{type_}x2",
        result="f16 bf16 u16 s16 u32 s32 f16x2 bf16x2",
    )


FORMS: tuple[Form, ...] = joined(
    (
        _setp_table(_COMPARISON, "eq ne lt le gt ge", "s16 s32 s64 u16 u32 u64"),
        _setp_table(_COMPARISON, "lo ls hi hs", "u16 u32 u64"),
        _setp_table(_COMPARISON, "eq ne", "b16 b32 b64"),
        _setp_table(_COMPARISON, FLOAT_COMPARISONS, "f32", flag="{.ftz}"),
        _setp_table(_COMPARISON, FLOAT_COMPARISONS, "f64"),
        _setp_table(_HALF_COMPARISON, FLOAT_COMPARISONS, "f16", flag="{.ftz}"),
        _setp_table(_HALF_COMPARISON, FLOAT_COMPARISONS, "bf16"),
        _pair_table("f16", flag="{.ftz}"),
        _pair_table("bf16"),
        table(
            _COMPARISON,
            ("set.<cmp>{.ftz}.<result>.<type=single>", "={result} {type} {type}", _set),
            ("set.<cmp>.<result>.<type=double>", "={result} {type} {type}", _set),
            cmp=FLOAT_COMPARISONS,
            single="f32",
            double="f64",
            result="u32 s32 f32",
        ),
        table(
            _COMPARISON,
            ("set.<cmp>.<result>.<type>", "={result} {type} {type}", _set),
            ("selp.<type=any>", "={type} {type} {type} pred", _selp),
            ("slct.<type=any>.s32", "={type} {type} {type} s32", _slct),
            cmp="eq ne lt le gt ge",
            type="s16 s32 s64 u16 u32 u64",
            result="u32 s32 f32",
            any="b16 b32 b64 u16 u32 u64 s16 s32 s64 f32 f64",
        ),
    )
)
