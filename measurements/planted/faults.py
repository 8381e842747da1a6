"""The faults: each is at one place of one kernel, or in one argument of its launches."""

from __future__ import annotations

import re
from dataclasses import dataclass

from build_config.errors import ValidationError
from build_config.steps.validation.emulation import NARROW, Case, Prompt
from build_config.testbed.synthetic_model import SMALL, TINY

PTX, HOST, SHARD = "PTX", "host", "shard"
NORM = r"_Z12rms_norm_f32ILi256ELb1ELb0ELb0E"
SOFTMAX = r"_Z12soft_max_f32ILb1ELi256ELi256EfE"
ROPE = r"_Z9rope_normILb1ELb0EffE"
ROPE_HALF = r"_Z9rope_normILb1ELb0Ef6__half"
ADD = r"_Z11k_bin_bcast"
GATED = r"_Z21unary_gated_op_kernel"
CONVERT = r"_Z23convert_unary_cont_vec4If6__half"
VECTOR = r"_Z13mul_mat_vec_fIffLi1ELi32ELb0"
FUSED = r"_Z13mul_mat_vec_fIffLi1ELi32ELb1"
WIDE = r"_Z13mul_mat_vec_fIffLi1ELi96ELb1"
MATRIX = r"_Z9mul_mat_fIfLi32ELi8ELi1E"
MATRIX_3 = r"_Z9mul_mat_fIfLi32ELi8ELi3E"
COPY = r"_Z10cpy_scalarIXadL_"
ROWS = r"_Z16k_get_rows_floatIff"
SET_ROWS = r"_Z10k_set_rowsIfl6__half"
POINTERS = r"_Z22k_compute_batched_ptrs"
FLASH = r"_Z18flash_attn_ext_f16ILi64ELi64ELi32E"
FLASH_VECTOR = r"_Z18flash_attn_ext_vecILi64ELi1EL9ggml_type1E"
QUANT_MATRIX = r"_Z9mul_mat_qIL9ggml_type12ELi32E"
QUANT_VECTOR = r"_Z13mul_mat_vec_qIL9ggml_type12ELi1ELb0"
QUANTISE = r"_Z17quantize_mmq_q8_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault in the kernels whose mangled names begin with ``kernel``, or in their launches.

    ``edit`` is a pattern and its replacement in the text of the kernel's PTX; ``number`` is the match that is edited,
    ``None`` for all of them. ``launch`` changes a launch as it arrives at the doubles, as ``launch.c`` describes:
    ``grid 0 -1``.
    """

    name: str
    kernel: str
    edit: tuple[str, str] | None = None
    number: int | None = 1
    launch: str = ""

    @property
    def where(self) -> str:
        """The part that is wrong: the PTX or the host code's arguments."""
        return HOST if self.launch else PTX

    def in_ptx(self, text: str, name: str) -> tuple[str, int]:
        """The PTX of a file with this fault in one kernel, and the line of the fault."""
        start = text.index(f".entry {name}(")
        end = text.find(".entry ", start + 1)
        body = text[start : end if end >= 0 else len(text)]
        pattern, replacement = self.edit or ("", "")
        matches = list(re.finditer(pattern, body, re.MULTILINE))
        chosen = matches if self.number is None else matches[self.number - 1 : self.number]
        if not chosen:
            raise ValidationError(f"{self.name}: {name} has no {pattern}")
        changed = body
        for match in reversed(chosen):
            changed = changed[: match.start()] + match.expand(replacement) + changed[match.end() :]
        line = text.count("\n", 0, start + chosen[0].start()) + 1
        return text[:start] + changed + text[start + len(body) :], line


def _ptx(name: str, kernel: str, edit: tuple[str, str], number: int | None = 1) -> Fault:
    return Fault(name=name, kernel=kernel, edit=edit, number=number)


def _host(name: str, kernel: str, launch: str) -> Fault:
    return Fault(name=name, kernel=kernel, launch=launch)


_NO_PRODUCT = (r"fma\.rn(\S*[ \t]+)(\S+), (\S+), (\S+), (\S+);", r"mov.f32 \2, \5;")
_SHUFFLE = r"(shfl\.sync\.bfly\.b32[ \t]+[^,]+, [^,]+, )[^,]+,"
_BARRIER = r"bar\.sync[ \t]+0;"
_WARP = r"bar\.warp\.sync[^;]*;"
_FRAGMENTS = (r"(ldmatrix[^{]*\{ ?)(%r\d+), ?(%r\d+)", r"\1\3, \2")
_OTHER_ROW = (r"(ldmatrix[^;]*\[%rd?\d+)(\+\d+)?\]", r"\1+64]")
_NO_MMA = (r"^\t*mma\.sync[^;]*;", ";")

FAULTS = (
    _ptx("rms_norm: a shuffle reads its own lane", NORM, (_SHUFFLE, r"\g<1>0,")),
    _ptx("rms_norm: the shuffle of the fifth step", NORM, (_SHUFFLE, r"\g<1>0,"), 5),
    _ptx("rms_norm: no barrier between the warps", NORM, (_BARRIER, ";"), None),
    _ptx("rms_norm: sqrt instead of rsqrt", NORM, (r"rsqrt\.approx", "sqrt.approx")),
    _ptx("rms_norm: a sum without its product", NORM, (r"fma\.rn\S*[ \t]+(\S+), \S+, \S+, (\S+);", r"mov.f32 \1, \2;")),
    _ptx("rms_norm: the result 4 bytes further", NORM, (r"(st\.global\S*[ \t]+\[%rd\d+)\]", r"\1+4]"), 1),
    _ptx("softmax: no barrier", SOFTMAX, (_BARRIER, ";"), None),
    _ptx("softmax: one of three barriers is missing", SOFTMAX, (_BARRIER, ";"), 1),
    _ptx("softmax: minimum instead of maximum", SOFTMAX, (r"max\.ftz", "min.ftz"), 1),
    _ptx("softmax: a shuffle of the maximum", SOFTMAX, (_SHUFFLE, r"\g<1>0,"), 3),
    _ptx("softmax: a shuffle of the maximum of all warps", SOFTMAX, (_SHUFFLE, r"\g<1>0,"), 8),
    _ptx("softmax: a shuffle of the sum", SOFTMAX, (_SHUFFLE, r"\g<1>0,"), 12),
    _ptx(
        "softmax: the operands of a difference exchanged",
        SOFTMAX,
        (r"(sub\.ftz\.f32[ \t]+\S+, )(\S+), (\S+);", r"\1\3, \2;"),
    ),
    _ptx("rope: sine instead of cosine", ROPE, (r"cos\.approx", "sin.approx")),
    _ptx(
        "rope: the operands of a difference exchanged",
        ROPE,
        (r"(sub\.ftz\.f32[ \t]+\S+, )(\S+), (\S+);", r"\1\3, \2;"),
        5,
    ),
    _ptx("rope of keys: the result 4 bytes further", ROPE_HALF, (r"(st\.global\S*[ \t]+\[%rd\d+)\]", r"\1+4]"), 2),
    _ptx("gate: a product instead of a quotient", GATED, (r"div\.(approx|full)\.ftz", "mul.ftz")),
    _ptx("addition becomes subtraction", ADD, (r"add\.ftz\.f32", "sub.ftz.f32")),
    _ptx("conversion to half rounds to zero", CONVERT, (r"cvt\.rn\.f16", "cvt.rz.f16"), None),
    _ptx("product with a vector: a shuffle", VECTOR, (_SHUFFLE, r"\g<1>0,"), 2),
    _ptx("product with a vector: a sum without its product", VECTOR, _NO_PRODUCT, 2),
    _ptx("product with a vector: a sum of longer rows without its product", VECTOR, _NO_PRODUCT, 3),
    _ptx("fused product with a vector: a shuffle", FUSED, (_SHUFFLE, r"\g<1>0,"), 4),
    _ptx("wide product with a vector: no barrier", WIDE, (_BARRIER, ";"), None),
    _ptx("matrix product: fragments of A exchanged", MATRIX, _FRAGMENTS),
    _ptx("matrix product: ldmatrix of the wrong row", MATRIX, _OTHER_ROW),
    _ptx("matrix product: an mma is missing", MATRIX, _NO_MMA, 3),
    _ptx("matrix product: barriers of the warp are missing", MATRIX, (_WARP, ";"), None),
    _ptx("matrix product: tf32 operand not stored", MATRIX, (r"^\t*st\.shared[^;]*;", ";"), 7),
    _ptx("matrix product of three warps: no barrier", MATRIX_3, (_BARRIER, ";"), None),
    _ptx("matrix product of three warps: one barrier is missing", MATRIX_3, (_BARRIER, ";"), 2),
    _ptx("copy: a row too far", COPY, (r"(st\.global\S*[ \t]+\[%rd\d+)\]", r"\1+64]"), 1),
    _ptx("rows of the embedding: the row before", ROWS, (r"mul\.lo\.s64", "mul.hi.s64"), 1),
    _ptx("flash attention: nobody waits for copies", FLASH, (r"cp\.async\.wait_all;", ";"), None),
    _ptx("flash attention: the wait for K is missing", FLASH, (r"cp\.async\.wait_all;", ";"), 11),
    _ptx("flash attention: the wait for V is missing", FLASH, (r"cp\.async\.wait_all;", ";"), 12),
    _ptx("flash attention of many keys: one wait is missing", FLASH, (r"cp\.async\.wait_all;", ";"), 1),
    _ptx("flash attention: no barrier", FLASH, (_BARRIER, ";"), None),
    _ptx("flash attention: one of all barriers is missing", FLASH, (_BARRIER, ";"), 23),
    _ptx("flash attention: a fragment of Q exchanged", FLASH, _FRAGMENTS, 139),
    _ptx("flash attention: a fragment of K exchanged", FLASH, _FRAGMENTS, 173),
    _ptx("flash attention: an mma is missing", FLASH, _NO_MMA, 330),
    _ptx("flash attention: a shuffle", FLASH, (_SHUFFLE, r"\g<1>0,"), 29),
    _ptx("flash attention of many keys: a fragment of Q exchanged", FLASH, _FRAGMENTS, 3),
    _ptx("flash attention of many keys: an mma is missing", FLASH, _NO_MMA, 10),
    _ptx("flash attention of many keys: a shuffle", FLASH, (_SHUFFLE, r"\g<1>0,"), 1),
    _ptx("flash attention: a copy of half the bytes", FLASH, (r"(cp\.async\.cg[^;]*), 16;", r"\1, 16, 8;"), 2),
    _ptx("flash attention of a token: no barrier", FLASH_VECTOR, (_BARRIER, ";"), None),
    _ptx("flash attention of a token: an exponent", FLASH_VECTOR, (r"ex2\.approx", "lg2.approx"), 2),
    _ptx("flash attention of a token: a shuffle", FLASH_VECTOR, (_SHUFFLE, r"\g<1>0,"), 3),
    _ptx("quantised product: ldmatrix of the wrong row", QUANT_MATRIX, _OTHER_ROW, 2),
    _ptx("quantised product: an mma is missing", QUANT_MATRIX, _NO_MMA, 5),
    _ptx("quantised product: no barrier", QUANT_MATRIX, (_BARRIER, ";"), None),
    _ptx("quantised product with a vector: a shuffle", QUANT_VECTOR, (_SHUFFLE, r"\g<1>0,"), 2),
    _ptx(
        "quantised product with a vector: unsigned",
        QUANT_VECTOR,
        (r"dp4a\.s32\.s32", "dp4a.s32.u32"),
        3,
    ),
    _ptx("quantisation: a shuffle of the maximum", QUANTISE, (_SHUFFLE, r"\g<1>0,"), 1),
    _ptx("rms_norm: a shuffle names half of the warp", NORM, (r"(mov\.u32[ \t]+%r\d+, )-1;", r"\g<1>65535;"), 1),
    _ptx("rms_norm: the mask of the lane", NORM, (r"(and\.b32[ \t]+%r\d+, %r\d+, )31;", r"\g<1>15;")),
    _host("rms_norm: a grid with a block less", NORM, "grid 0 -1"),
    _host("rms_norm: half of the threads", NORM, "block 0 /2"),
    _host("rms_norm: a wrong number of columns", NORM, "argument 2 +1"),
    _host("rms_norm: the stride of the rows", NORM, "argument 3 +1"),
    _host("softmax: a grid with a block less", SOFTMAX, "grid 0 -1"),
    _host("softmax: no shared memory for the row", SOFTMAX, "shared 0 =128"),
    _host("softmax: the mask 64 bytes further", SOFTMAX, "argument 1 +64"),
    _host("rope: a grid with a block less", ROPE, "grid 0 -1"),
    _host("rope: few threads", ROPE, "block 1 =4"),
    _host("rope: the positions of the next tokens", ROPE, "argument 13 +4"),
    _host("gate: a block of half the threads", GATED, "block 0 /2"),
    _host("addition: half of the numbers", ADD, "argument 3 /2"),
    _host("addition: a grid with a block less", ADD, "grid 0 -1"),
    _host("conversion: half of the numbers", CONVERT, "argument 2 /2"),
    _host("matrix product: a grid with a block less", MATRIX, "grid 0 -1"),
    _host("matrix product: an operand 256 bytes further", MATRIX, "argument 1 +256"),
    _host("matrix product: the stride of the rows", MATRIX, "argument 7 +1"),
    _host("matrix product: half of the shared memory", MATRIX, "shared 0 /2"),
    _host("product with a vector: a wrong operand", VECTOR, "argument 0 +256"),
    _host("product with a vector: a grid with a block less", VECTOR, "grid 0 -1"),
    _host("keys are written one row too far", SET_ROWS, "argument 2 +256"),
    _host("rows of the embedding: the stride", ROWS, "argument 9 +4"),
    _host("pointers of a batch: a wrong stride", POINTERS, "argument 8 +4"),
    _host("flash attention: a grid with a block less", FLASH, "grid 0 -1"),
    _host("flash attention: half of the shared memory", FLASH, "shared 0 /2"),
    _host("flash attention: the scale", FLASH, "argument 8 +4194304"),
    _host("quantised product: half of the shared memory", QUANT_MATRIX, "shared 0 /2"),
    _host("quantised product with a vector: a grid with a block less", QUANT_VECTOR, "grid 0 -1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherBuild:
    """A cubin of ``source`` in the shard that another command compiled: ``before`` in it is ``after``."""

    name: str
    source: str
    before: str
    after: str

    def changed(self, command: str) -> str:
        """The command of the other build. Raises ``ValidationError`` if it is the same."""
        if self.before not in command:
            raise ValidationError(f"{self.name}: the command has no {self.before}")
        return command.replace(self.before, self.after)


OTHER_BUILDS = (
    OtherBuild(name="the cubin of a build without -use_fast_math", source="norm.cu", before="-use_fast_math", after=""),
    OtherBuild(
        name="a cubin that ptxas optimised less",
        source="softmax.cu",
        before="-use_fast_math",
        after="-use_fast_math -Xptxas -O1",
    ),
)

CHECKS = (
    *(Case(shape=TINY, kind="F32", prompts=(Prompt(tokens=tokens),)) for tokens in (8, 1, 64)),
    Case(shape=SMALL, kind="F32", prompts=(Prompt(tokens=64),)),
    *(Case(shape=NARROW, kind="F16", prompts=(Prompt(tokens=tokens, flash=True),)) for tokens in (32, 1)),
    Case(shape=NARROW, kind="F16", prompts=(Prompt(tokens=512, small=64, flash=True),)),
    *(Case(shape=NARROW, kind="Q4_K_M", prompts=(Prompt(tokens=tokens),)) for tokens in (32, 1)),
)
"""Checks of ``nox -s emulate -- --all``, one prompt each, that launch the kernels with faults."""
