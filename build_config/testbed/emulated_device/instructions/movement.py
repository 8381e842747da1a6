"""Data movement: registers, memory, addresses, asynchronous copies (PTX ISA 9.0, 9.7.9).

Every access is at its natural alignment, that of a vector at the whole vector's (9.7.9.8). Addresses of all state
spaces are addresses of the process, so ``cvta`` changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from build_config.testbed.emulated_device.instructions.form import joined, table
from build_config.testbed.emulated_device.ptx_tree import TYPE_BYTES

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.instructions.form import Form, Operand, Use

SPACES = {"": "GENERIC", "global": "GLOBAL", "shared": "SHARED", "const": "CONST", "local": "LOCAL", "param": "PARAM"}
STRONG = ("volatile", "relaxed", "acquire", "release")


def c_type(type_: str) -> str:
    """The C type of a value in memory: signed ones are extended by their sign in wider registers."""
    return f"{'int' if type_[0] == 's' else 'uint'}{8 * TYPE_BYTES[type_]}_t"


def memory(use: Use, address: Operand, size: int) -> str:
    """The C pointer for an access of ``size`` bytes."""
    space = SPACES[use["space"].partition("::")[0]]
    return f"ptx_{space.lower()}(thread, {address.text}, {size})"


def _load(use: Use) -> str:
    target, address = use.operands
    type_, count = use["type"], int(use["vector"].removeprefix("v") or 1)
    c = f"const {c_type(type_)}"
    pointer = memory(use, address, count * TYPE_BYTES[type_])
    if count > 1:
        loads = (f"{name} = from[{index}];" for index, name in enumerate(target.elements) if name)
        return f"{{ {c} *from = {pointer}; {' '.join(loads)} }}"
    if use["order"] in STRONG:  # another block may write it: let it run, for this thread may wait for it
        return f"ptx_pause(thread); {use.assign(f'({c})__atomic_load_n(({c} *){pointer}, __ATOMIC_ACQUIRE)')}"
    return use.assign(f"*({c} *){pointer}")


def _store(use: Use) -> str:
    address, source = use.operands
    type_, count = use["type"], int(use["vector"].removeprefix("v") or 1)
    c = c_type(type_)
    pointer = memory(use, address, count * TYPE_BYTES[type_])
    if count > 1:
        stores = (f"to[{index}] = ({c}){value};" for index, value in enumerate(source.elements))
        return f"{{ {c} *to = {pointer}; {' '.join(stores)} }}"
    if use["order"] in STRONG:
        return f"__atomic_store_n(({c} *){pointer}, ({c}){source.text}, __ATOMIC_RELEASE);"
    return f"*({c} *){pointer} = ({c}){source.text};"


def _mov(use: Use) -> str:
    """``mov``: a value; or a register to the registers that share its bits, lowest first; or back."""
    target, source = use.operands
    bits = use["bits"]
    if target.elements:
        parts = (
            f"{name} = (uint{target.bits}_t)(value >> {target.bits * index});"
            for index, name in enumerate(target.elements)
            if name
        )
        return f"{{ const uint{bits}_t value = {source.text}; {' '.join(parts)} }}"
    if source.elements:
        parts = (
            f"(uint{bits}_t)(uint{source.bits}_t){value} << {source.bits * index}"
            for index, value in enumerate(source.elements)
        )
        return use.assign(f"({' | '.join(parts)})")
    return use.assign(f"(uint{bits}_t){source.text}")


def _copy(use: Use) -> str:
    return use.assign(use.operands[1].text)


def _nothing(_: Use) -> str:
    return ";"


def _isspacep(use: Use) -> str:
    return use.assign(f"ptx_is_{use['space'].partition('::')[0]}(thread, {use.operands[1].text})")


def _cp_async(use: Use) -> str:
    """``cp.async``: the fourth operand is the size of the source, what is missing becomes zeros."""
    target, source, size, source_size = use.operands
    runtime = "thread->runtime->copy"
    return f"{runtime}(thread, {target.text}, {source.text}, {size.text}, {source_size.text or size.text});"


def _prmt(use: Use) -> str:
    _, first, second, selector = use.operands
    return use.assign(f"ptx_prmt_{use['mode'] or 'default'}({first.text}, {second.text}, {selector.text})")


_HINTS = {
    "cop": "ca cg cs lu cv",
    "eviction": "L1::evict_normal L1::evict_unchanged L1::evict_first L1::evict_last L1::no_allocate",
    "prefetch": "L2::64B L2::128B L2::256B",
    "scope": "cta cluster gpu sys",
}

FORMS: tuple[Form, ...] = joined(
    (
        table(
            "9.7.9.3 to 9.7.9.7: mov, shf, shfl, prmt",
            ("mov.<type>", "=packed:{type} packed:{type}", _mov),
            ("mov.pred", "=pred pred", _copy),
            ("prmt.b32{.<mode>}", "=b32 b32 b32 b32", _prmt),
            type="b16 u16 s16 b32 u32 s32 f32 b64 u64 s64 f64",
            mode="f4e b4e rc8 ecl ecr rc16",
        ),
        *(
            table(
                "9.7.9.8 to 9.7.9.12: ld, ld.global.nc, ldu, st",
                (
                    "ld{.<order>}{.<scope>}{.<space>}{.<cop>}{.nc}{.<eviction>}{.<prefetch>}" + dotted + ".<type>",
                    f"=>{count}{{type}} address",
                    _load,
                ),
                ("ldu{.<space>}" + dotted + ".<type>", f"=>{count}{{type}} address", _load),
                (
                    "st{.<order>}{.<scope>}{.<space>}{.<cop>}{.<eviction>}" + dotted + ".<type>",
                    f"address >{count}{{type}}",
                    _store,
                ),
                vector=vector,
                type="b8 u8 s8 b16 u16 s16 b32 u32 s32 f32 b64 u64 s64 f64",
                order="weak volatile relaxed acquire release",
                space="global shared shared::cta const local param param::entry param::func",
                **_HINTS,
            )
            for dotted, vector, count in (
                ("{.<vector>}", "v1", ""),
                (".<vector>", "v2", "2*"),
                (".<vector>", "v4", "4*"),
            )
        ),
        table(
            "9.7.9.8 to 9.7.9.12: ld, ld.global.nc, st of 256 bits",
            (
                "ld{.<order>}{.<scope>}.<space>{.nc}{.<eviction>}{.<prefetch>}.<vector>.<type>",
                "=8*{type} address",
                _load,
            ),
            ("st{.<order>}{.<scope>}.<space>{.<eviction>}.<vector>.<type>", "address 8*{type}", _store),
            vector="v8",
            type="b32 u32 s32 f32",
            order="weak",
            space="global",
            **_HINTS,
        ),
        table(
            "9.7.9.15 to 9.7.9.20: prefetch, isspacep, cvta",
            ("prefetch{.<space>}.<level>", "address", _nothing),
            ("prefetchu.L1", "address", _nothing),
            ("isspacep.<space=known>", "=pred u64", _isspacep),
            ("cvta{.to}.<space>.u64", "=u64 u64", _copy),
            space="global shared shared::cta const local param",
            known="shared shared::cta",  # addresses do not say whether they are of another space
            level="L1 L2",
        ),
        table(
            "9.7.9.25.3 Data Movement and Conversion Instructions: Non-bulk copy",
            ("cp.async.ca.<target>.global{.<prefetch>}", "address address number ?u32", _cp_async),
            ("cp.async.cg.<target>.global{.<prefetch>}", "address address number ?u32", _cp_async),
            ("cp.async.commit_group", "", lambda _: "thread->runtime->commit(thread);"),
            (
                "cp.async.wait_group",
                "number",
                lambda use: f"thread->runtime->wait(thread, {use.operands[0].text});",
            ),
            ("cp.async.wait_all", "", lambda _: "thread->runtime->wait(thread, PTX_ALL);"),
            target="shared shared::cta",
            **_HINTS,
        ),
    )
)
