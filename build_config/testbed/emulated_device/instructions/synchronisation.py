"""Synchronisation and communication of threads: barriers, fences, atomics, warp-wide values (PTX ISA 9.0, 9.7.13).

Warps have no lock step: each thread has its own control flow, and those that an instruction names meet there. What a
warp-wide instruction computes is a function in ``ptx_warp.h``, which sees the values of all lanes that met.
``activemask`` is not among them: which threads happen to run together is no property of a program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import joined, table
from build_config.testbed.emulated_device.instructions.movement import memory
from build_config.testbed.emulated_device.ptx_tree import TYPE_BYTES

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Operand, Use


def meet(target: Operand, function: str, values: str, mask: str = "UINT32_MAX") -> str:
    """A warp-wide function of the values in ``thread->a``; its results are in ``thread->r``."""
    results = target.elements or (target.text,)
    taken = " ".join(f"{name} = thread->r[{index}];" for index, name in enumerate(results) if name)
    return f"{values} thread->runtime->warp(thread, ptx_{function}, {mask}); {taken}"


def _meeting(use: Use) -> str:
    return f"thread->runtime->warp(thread, ptx_meeting, {use.operands[0].text});"


def _shfl(use: Use) -> str:
    target, source, lane, clamp, mask = use.operands
    values = f"thread->a[0] = {source.text}; thread->a[1] = {lane.text}; thread->a[2] = {clamp.text};"
    return meet(target, f"shfl_{use['mode']}", values, mask.text)


def _vote(use: Use) -> str:
    target, condition, mask = use.operands
    return meet(target, f"vote_{use['how']}", f"thread->a[0] = {condition.text};", mask.text)


def _redux(use: Use) -> str:
    target, source, mask = use.operands
    return meet(target, f"redux_{use['how']}_{use['type']}", f"thread->a[0] = {source.text};", mask.text)


def _match(use: Use) -> str:
    target, source, mask = use.operands
    values = f"thread->a[0] = (uint32_t){source.text}; thread->a[1] = (uint32_t)((uint64_t){source.text} >> 32);"
    return meet(target, f"match_{use['how']}", values, mask.text)


def _barrier(use: Use) -> str:
    number, count = use.operands
    return f"thread->runtime->barrier(thread, {number.text}, {count.text or '0'});"


def _arrive(use: Use) -> str:
    number, count = use.operands
    return f"thread->runtime->arrive(thread, {number.text}, {count.text});"


def _reduce(use: Use) -> str:
    """``bar.red``: with three operands, all threads of the block take part."""
    _, number, *count, value = use.operands
    threads = count[0].text if count else "0"
    result = {"popc": "counted", "and": "counted == met", "or": "counted != 0"}[use["how"]]
    call = f"thread->runtime->reduce(thread, {number.text}, {threads}, {value.text}, &met)"
    return f"{{ uint32_t met = 0; const uint32_t counted = {call}; (void)met; {use.assign(f'({result})')} }}"


def _atomic(use: Use, address: Operand, values: tuple[Operand, ...]) -> str:
    arguments = ", ".join((memory(use, address, TYPE_BYTES[use["type"]]), *(value.text for value in values)))
    return f"ptx_atom_{use['how']}_{use['type']}({arguments})"


def _atom(use: Use) -> str:
    _, address, *values = use.operands
    return use.assign(_atomic(use, address, tuple(values)))


def _red(use: Use) -> str:
    address, value = use.operands
    return f"(void){_atomic(use, address, (value,))};"


def _fence(_: Use) -> str:
    return "__atomic_thread_fence(__ATOMIC_SEQ_CST);"


_SCOPE = "{.<order>}{.<scope>}{.<space>}"
_SCOPES = {
    "order": "relaxed acquire release acq_rel",
    "scope": "cta cluster gpu sys",
    "space": "global shared shared::cta",
}

FORMS: tuple[Form, ...] = joined(
    (
        table(
            "9.7.9.6 Data Movement and Conversion Instructions: shfl.sync",
            ("shfl.sync.<mode>.b32", "=b32|pred b32 b32 b32 b32", _shfl),
            mode="up down bfly idx",
        ),
        table(
            "9.7.13.1 and 9.7.13.2: bar, barrier, bar.warp.sync",
            ("bar{.cta}.sync", "b32 ?b32", _barrier),
            ("barrier{.cta}.sync{.aligned}", "b32 ?b32", _barrier),
            ("bar{.cta}.arrive", "b32 b32", _arrive),
            ("barrier{.cta}.arrive{.aligned}", "b32 b32", _arrive),
            ("bar{.cta}.red.<how>.pred", "=pred b32 !pred", _reduce),
            ("bar{.cta}.red.<how>.pred", "=pred b32 b32 !pred", _reduce),
            ("bar{.cta}.red.<how=count>.u32", "=u32 b32 !pred", _reduce),
            ("bar{.cta}.red.<how=count>.u32", "=u32 b32 b32 !pred", _reduce),
            ("barrier{.cta}.red.<how>{.aligned}.pred", "=pred b32 !pred", _reduce),
            ("barrier{.cta}.red.<how>{.aligned}.pred", "=pred b32 b32 !pred", _reduce),
            ("barrier{.cta}.red.<how=count>{.aligned}.u32", "=u32 b32 !pred", _reduce),
            ("barrier{.cta}.red.<how=count>{.aligned}.u32", "=u32 b32 b32 !pred", _reduce),
            ("bar.warp.sync", "b32", _meeting),
            how="and or",
            count="popc",
        ),
        table(
            "9.7.13.4 Parallel Synchronization and Communication Instructions: membar, fence",
            ("membar.<level>", "", _fence),
            ("fence{.<semantics>}.<scope>", "", _fence),
            level="cta gl sys",
            semantics="sc acq_rel acquire release",
            scope="cta cluster gpu sys",
        ),
        *(
            table(
                "9.7.13.5 and 9.7.13.7: atom, red",
                (f"atom{_SCOPE}.<how>.<type>", "={type} address {type}", _atom),
                (f"red{_SCOPE}.<how>.<type>", "address {type}", _red),
                **_SCOPES,
                how=how,
                type=type_,
            )
            for how, type_ in (
                ("add min max", "u32 s32 u64 s64"),
                ("add", "f32 f64"),
                ("and or xor", "b32 b64"),
                ("inc dec", "u32"),
            )
        ),
        table(
            "9.7.13.5 and 9.7.13.7: atom, red",
            (f"atom{_SCOPE}.<how>.noftz.<type>", "={type} address {type}", _atom),
            (f"red{_SCOPE}.<how>.noftz.<type>", "address {type}", _red),
            (f"atom{_SCOPE}.<how=swap>.<type=bits>", "={type} address {type}", _atom),
            (f"atom{_SCOPE}.<how=compare>.<type=bits>", "={type} address {type} {type}", _atom),
            **_SCOPES,
            how="add",
            type="f16 bf16 f16x2 bf16x2",
            swap="exch",
            compare="cas",
            bits="b32 b64",
        ),
        table(
            "9.7.13.9 to 9.7.13.12: vote.sync, match.sync, redux.sync",
            ("vote.sync.<how>.pred", "=pred !pred b32", _vote),
            ("vote.sync.<how=mask>.b32", "=b32 !pred b32", _vote),
            ("match.<how=one>.sync.<type>", "=b32 {type} b32", _match),
            ("match.<how=every>.sync.<type>", "=b32|pred {type} b32", _match),
            ("redux.sync.<how=arithmetic>.<type=integer>", "={type} {type} b32", _redux),
            ("redux.sync.<how=logic>.<type=bits>", "={type} {type} b32", _redux),
            how="all any uni",
            mask="ballot",
            one="any",
            every="all",
            arithmetic="add min max",
            integer="u32 s32",
            logic="and or xor",
            bits="b32",
            type="b32 b64",
        ),
    )
)
