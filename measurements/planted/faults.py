"""The faults: each is at one place of one kernel, or in one argument of its launches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from build_config.errors import ValidationError
from build_config.steps.validation.emulation import NARROW, Case, Prompt
from build_config.testbed.synthetic_model import SMALL, TINY, ModelShape

if TYPE_CHECKING:
    from build_config.testbed.emulated_device.translation import TranslatedKernel

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
    """A fault in the kernels whose mangled names begin with ``kernel``.

    ``edit`` is a pattern and its replacement in the text of the kernel's PTX; ``number`` is the match that is edited,
    ``None`` for all of them. ``begin`` is C that each thread runs first, in which ``p`` are its parameters. ``case`` is
    the model and the prompt that launch the kernel.
    """

    name: str
    where: str
    kernel: str
    edit: tuple[str, str] | None = None
    number: int | None = 1
    begin: str = ""
    case: Case

    def in_ptx(self, text: str, name: str) -> tuple[str, int | None]:
        """The PTX of a file with this fault in one kernel, and the line of the fault."""
        if self.edit is None:
            return text, None
        start = text.index(f".entry {name}(")
        end = text.find(".entry ", start + 1)
        body = text[start : end if end >= 0 else len(text)]
        matches = list(re.finditer(self.edit[0], body, re.MULTILINE))
        chosen = matches if self.number is None else matches[self.number - 1 : self.number]
        if not chosen:
            raise ValidationError(f"{self.name}: {name} has no {self.edit[0]}")
        changed = body
        for match in reversed(chosen):
            changed = changed[: match.start()] + match.expand(self.edit[1]) + changed[match.end() :]
        line = text.count("\n", 0, start + chosen[0].start()) + 1
        return text[:start] + changed + text[start + len(body) :], line

    def in_c(self, kernel: TranslatedKernel) -> str:
        """The translated kernel with the fault in the arguments of its launches."""
        if not self.begin:
            return kernel.source
        match = re.search(r"^    \.run = (\w+),$", kernel.source, re.MULTILINE)
        at = kernel.source.index("static const uint32_t parameter_offsets[]")
        if match is None:
            raise ValidationError(f"{kernel.name}: the translation has another form")
        wrapper = (
            "static void planted(struct ptx_thread *thread, const uint8_t *parameters) {\n"
            "    struct ptx_block *block = (struct ptx_block *)(uintptr_t)thread->block;\n"
            "    uint8_t p[4096];\n    (void)block;\n    __builtin_memcpy(p, parameters, 1024);\n"
            f"    {self.begin}\n    {match[1]}(thread, p);\n}}\n"
        )
        source = kernel.source[:at] + wrapper + kernel.source[at:]
        return source.replace(match[0], "    .run = planted,")


def _case(tokens: int, kind: str = "F32", *, flash: bool = False, shape: ModelShape | None = None) -> Case:
    shape = shape or (TINY if kind == "F32" else NARROW)
    return Case(shape=shape, kind=kind, prompts=(Prompt(tokens=tokens, flash=flash),))


LONG, SHORT, TOKEN, SMALL_LONG = _case(64), _case(8), _case(1), _case(64, shape=SMALL)
FLASH_LONG, FLASH_TOKEN = _case(32, "F16", flash=True), _case(1, "F16", flash=True)
QUANTISED, QUANTISED_TOKEN = _case(32, "Q4_K_M"), _case(1, "Q4_K_M")


def _ptx(name: str, kernel: str, edit: tuple[str, str], number: int | None = 1, case: Case = SHORT) -> Fault:
    return Fault(name=name, where=PTX, kernel=kernel, edit=edit, number=number, case=case)


def _host(name: str, kernel: str, begin: str, case: Case = SHORT) -> Fault:
    return Fault(name=name, where=HOST, kernel=kernel, begin=begin, case=case)


_SHUFFLE = r"(shfl\.sync\.bfly\.b32[ \t]+[^,]+, [^,]+, )[^,]+,"
_BARRIER = r"bar\.sync[ \t]+0;"
_WARP = r"bar\.warp\.sync[^;]*;"
_FRAGMENTS = (r"(ldmatrix[^{]*\{ ?)(%r\d+), ?(%r\d+)", r"\1\3, \2")
_OTHER_ROW = (r"(ldmatrix[^;]*\[%rd?\d+)(\+\d+)?\]", r"\1+64]")
_NO_MMA = (r"^\t*mma\.sync[^;]*;", ";")
_LAST_BLOCK = "if (block->ctaid[{0}] + 1 == block->nctaid[{0}] && block->nctaid[{0}] > 1) return;"
_HALF_OF_THREADS = "if (thread->tid[0] >= block->ntid[0] / 2) return;"
_POINTER = "*(uint64_t *)(p + {}) += 256;"
_NUMBER = "*(uint32_t *)(p + {}) += 1;"
_LONG = "*(uint64_t *)(p + {}) += {};"

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
    _ptx("conversion to half rounds to zero", CONVERT, (r"cvt\.rn\.f16", "cvt.rz.f16"), None, LONG),
    _ptx("product with a vector: a shuffle", VECTOR, (_SHUFFLE, r"\g<1>0,"), 2, TOKEN),
    _ptx(
        "product with a vector: a sum without its product",
        VECTOR,
        (r"fma\.rn(\S*[ \t]+)(\S+), (\S+), (\S+), (\S+);", r"mov.f32 \2, \5;"),
        3,
        TOKEN,
    ),
    _ptx("fused product with a vector: a shuffle", FUSED, (_SHUFFLE, r"\g<1>0,"), 4, TOKEN),
    _ptx("wide product with a vector: no barrier", WIDE, (_BARRIER, ";"), None, TOKEN),
    _ptx("matrix product: fragments of A exchanged", MATRIX, _FRAGMENTS),
    _ptx("matrix product: ldmatrix of the wrong row", MATRIX, _OTHER_ROW),
    _ptx("matrix product: an mma is missing", MATRIX, _NO_MMA, 3),
    _ptx("matrix product: barriers of the warp are missing", MATRIX, (_WARP, ";"), None),
    _ptx("matrix product: tf32 operand not stored", MATRIX, (r"^\t*st\.shared[^;]*;", ";"), 7),
    _ptx("matrix product of three warps: no barrier", MATRIX_3, (_BARRIER, ";"), None),
    _ptx("matrix product of three warps: one barrier is missing", MATRIX_3, (_BARRIER, ";"), 2),
    _ptx("copy: a row too far", COPY, (r"(st\.global\S*[ \t]+\[%rd\d+)\]", r"\1+64]"), 1),
    _ptx("rows of the embedding: the row before", ROWS, (r"mul\.lo\.s64", "mul.hi.s64"), 1),
    _ptx("flash attention: nobody waits for copies", FLASH, (r"cp\.async\.wait_all;", ";"), None, FLASH_LONG),
    _ptx("flash attention: one wait is missing", FLASH, (r"cp\.async\.wait_all;", ";"), 1, FLASH_LONG),
    _ptx("flash attention: no barrier", FLASH, (_BARRIER, ";"), None, FLASH_LONG),
    _ptx("flash attention: a fragment of K exchanged", FLASH, _FRAGMENTS, 3, FLASH_LONG),
    _ptx("flash attention: an mma is missing", FLASH, _NO_MMA, 10, FLASH_LONG),
    _ptx("flash attention: a shuffle", FLASH, (_SHUFFLE, r"\g<1>0,"), 1, FLASH_LONG),
    _ptx(
        "flash attention: a copy of half the bytes", FLASH, (r"(cp\.async\.cg[^;]*), 16;", r"\1, 16, 8;"), 2, FLASH_LONG
    ),
    _ptx("flash attention of a token: no barrier", FLASH_VECTOR, (_BARRIER, ";"), None, FLASH_TOKEN),
    _ptx("flash attention of a token: an exponent", FLASH_VECTOR, (r"ex2\.approx", "lg2.approx"), 2, FLASH_TOKEN),
    _ptx("flash attention of a token: a shuffle", FLASH_VECTOR, (_SHUFFLE, r"\g<1>0,"), 3, FLASH_TOKEN),
    _ptx("quantised product: ldmatrix of the wrong row", QUANT_MATRIX, _OTHER_ROW, 2, QUANTISED),
    _ptx("quantised product: an mma is missing", QUANT_MATRIX, _NO_MMA, 5, QUANTISED),
    _ptx("quantised product: no barrier", QUANT_MATRIX, (_BARRIER, ";"), None, QUANTISED),
    _ptx("quantised product with a vector: a shuffle", QUANT_VECTOR, (_SHUFFLE, r"\g<1>0,"), 2, QUANTISED_TOKEN),
    _ptx(
        "quantised product with a vector: unsigned",
        QUANT_VECTOR,
        (r"dp4a\.s32\.s32", "dp4a.s32.u32"),
        3,
        QUANTISED_TOKEN,
    ),
    _ptx("quantisation: a shuffle of the maximum", QUANTISE, (_SHUFFLE, r"\g<1>0,"), 1, QUANTISED),
    _host("rms_norm: a grid with a block less", NORM, _LAST_BLOCK.format(0)),
    _host("softmax: a grid with a block less", SOFTMAX, _LAST_BLOCK.format(0)),
    _host("rope: half of the pairs", ROPE, "if (thread->tid[1] >= 4) return;"),
    _host("addition: half of the threads", ADD, _HALF_OF_THREADS),
    _host("matrix product: a grid with a block less", MATRIX, _LAST_BLOCK.format(0)),
    _host("matrix product: an operand 256 bytes further", MATRIX, _POINTER.format(8)),
    _host("matrix product: the stride of the rows", MATRIX, _NUMBER.format(44)),
    _host("product with a vector: a wrong operand", VECTOR, _POINTER.format(0), TOKEN),
    _host("rms_norm: a wrong number of columns", NORM, _NUMBER.format(16)),
    _host("rms_norm: the stride of the rows", NORM, _LONG.format(24, 1)),
    _host("softmax: too little shared memory", SOFTMAX, "block->dynamic_shared = 64;"),
    _host("matrix product: too little shared memory", MATRIX, "block->dynamic_shared /= 2;"),
    _host("keys are written one row too far", SET_ROWS, _POINTER.format(16)),
    _host("pointers of a batch: a wrong stride", POINTERS, _LONG.format(64, 4), SMALL_LONG),
)
