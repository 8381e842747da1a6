"""The lines of a log that decide a diagnosis: llama.cpp's own, and those of a failed import or a crash.

The one place that knows their wording. ``versions`` are those of llama-cpp-python whose llama.cpp prints a line, of
those that were read: 0.1.50, 0.1.55, 0.1.59, 0.1.62, 0.1.64, 0.1.65, 0.1.78, 0.2.11, 0.2.24, 0.2.56, 0.2.75, 0.2.90,
0.3.2, 0.3.8, 0.3.9, 0.3.10, 0.3.16 and 0.3.36. No pattern contains the name before the colon: it has changed between
versions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CUDA_2023 = "0.1.65 to 0.2.24"
ALL = "0.1.65 to 0.3.36"


@dataclass(frozen=True)
class Line:
    """A kind of line. One of its ``words`` is in every such line, so that most lines need no pattern."""

    kind: str
    versions: str
    words: tuple[str, ...]
    pattern: re.Pattern[str]


def _line(kind: str, versions: str, words: str, pattern: str) -> Line:
    return Line(kind, versions, tuple(words.split("|")), re.compile(pattern))


_PLACES = (
    _line("model", "0.1.65 to 0.1.78", "loading model from", r"llama\.cpp: loading model from (?P<path>.+)"),
    _line(
        "model",
        "0.2.11 to 0.3.36",
        "loaded meta data",
        r"loaded meta data .*?from (?P<path>.+?)(?: \(version .*)?$",
    ),
    _line("vocabulary", "0.2.11 to 0.3.36", "vocab only", r"vocab only - skipping tensors"),
    # Before 0.3.16 without is_swa; debug, so llama.cpp's own programs print it only with -v.
    _line(
        "weights",
        "0.3.8 to 0.3.36",
        "assigned to device",
        r"\blayer\s+(?P<layer>\d{1,6})\s+assigned to device\s+(?P<device>[^\s,]+)",
    ),
    _line("cache", "0.3.9 to 0.3.36", "dev =", r"\blayer\s+(?P<layer>\d{1,6}):\s+dev\s*=\s*(?P<device>[^\s,]+)"),
    _line(
        "no_cache",
        "0.3.10 to 0.3.36",
        "does not have KV|sharing with|reuse layer",
        r"\blayer\s+(?P<layer>\d{1,6}):\s+(?:does not have KV cache|sharing with layer|reuse layer)\b",
    ),
    _line(
        "filtered", "0.3.10 to 0.3.36", "filtered|skipped", r"\blayer\s+(?P<layer>\d{1,6}):\s+(?:filtered|skipped)\b"
    ),
    _line(
        "offloaded",
        ALL,
        "layers to GPU",
        r"\boffloaded\s+(?P<on_gpu>\d{1,6})/(?P<total>\d{1,6})\s+layers to GPU\b",
    ),
    _line(
        "repeating", "0.1.64 to 0.3.36", "repeating layers", r"\boffloading (?P<count>\d{1,6}) repeating layers to GPU"
    ),
    # From 0.2.27 on with the name of the memory; "model" was added before 0.3.2, "input" was left out before 0.2.75.
    _line(
        "buffer",
        "0.2.56 to 0.3.36",
        "buffer size",
        r"(?<!\S)(?P<name>\S+)\s+(?P<purpose>model|KV|compute|output|RS) buffer size"
        r"\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) MiB",
    ),
    _line(
        "buffer",
        "0.2.56 to 0.2.90",
        "buffer size",
        r":\s+(?P<name>\S+)\s+buffer size\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) MiB",
    ),
    # Of the process's own memory: everything that is not in VRAM.
    _line("host_memory", CUDA_2023, "mem required", r"mem required\s*=\s*(?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    _line("gpu_memory", "0.2.11 to 0.2.24", "VRAM used", r": VRAM used: (?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    _line("gpu_memory", "0.1.50 to 0.1.78", "VRAM used", r"\btotal VRAM used: (?P<size>\d{1,12}) MB"),
    _line("gpu_cache", "0.2.11 to 0.2.24", "VRAM kv self", r"VRAM kv self = (?P<size>\d{1,12}(?:\.\d+)?) Mi?B"),
    _line("cache_2023", "0.1.64 to 0.2.11", "cache to GPU", r"\boffloading (?P<half>[kv]) cache to GPU"),
    _line("host_cache_2023", "0.1.64 to 0.1.78", "cache to GPU", r"cannot offload (?P<half>[kv]) cache to GPU"),
    # The first builds with cuBLAS printed no total number of layers, and their cache was always on the CPU.
    _line(
        "first_layers",
        "0.1.50 to 0.1.62",  # with [cublas] until 0.1.57
        "layers to GPU",
        r"(?:\[cublas\]|:) offloading (?P<count>\d{1,6}) layers to GPU",
    ),
    _line("first_output", "0.1.50 to 0.1.62", "output layer to GPU", r"offloading output layer to GPU"),
    _line(
        "overridden",
        "0.3.9 to 0.3.36",  # overriden, without the size, in 0.3.9 only
        "buffer type over",
        r"tensor (?P<tensor>\S+) (?:\((?P<size>\d{1,12}) MiB \S+\) )?buffer type overr?id+en to (?P<name>\S+)",
    ),
    _line("overrides", "0.3.36", "tensor overrides to CPU", r"tensor overrides to CPU are used"),
    _line(
        "moved",
        "0.3.2 to 0.3.36",
        "preferred buffer type",
        r"\(and (?P<others>\d{1,6}) others\) cannot be used with preferred buffer type (?P<wanted>\S+), "
        r"using (?P<name>\S+) instead",
    ),
    # An encoder has no cache. The first is printed when it computes, the others when it is loaded.
    _line("encoder", "0.3.16 to 0.3.36", "calling encode() instead", r"calling encode\(\) instead"),
    _line(
        "encoder",
        "0.3.16 to 0.3.36",
        "arch",
        r"(?:\barch|general\.architecture str)\s*=\s*(?:(?:\w+-)*bert(?:-\w+)*|t5encoder)\s*$",
    ),
)

_PROCESS = (
    _line(
        "in_use",
        "0.3.2 to 0.3.36",
        "using device",
        r"using device (?P<device>\w+(?:\[[^\]]*\])?) \((?P<name>.+?)\)(?: \(|\s+-)",
    ),
    _line(
        "listed",
        "0.1.78 to 0.3.36",
        "compute capability",
        r"\bDevice (?P<number>\d+): (?P<name>.+?), compute capability (?P<capability>\d+\.\d+)",
    ),
    _line(
        "named",
        "0.2.56 to 0.2.90",
        "uma: ",
        r"\b(?P<device>Vulkan\d+): (?P<name>.+?)(?: \([^()|]*\))? \| uma: ",
    ),
    _line(
        "named",
        "0.3.2 to 0.3.36",
        "ggml_vulkan: ",
        r"ggml_vulkan: (?P<number>\d+) = (?P<name>.+?) \([^()|]*\) \| uma",
    ),
    # Devices of a GPU's backend that compute on the CPU; the first line follows that of its device.
    _line("on_cpu", "0.2.56 to 0.3.36", "Device type is CPU", r"ggml_vulkan: Warning: Device type is CPU"),
    _line(
        "on_cpu",
        "0.3.36",
        ":cpu:",
        r"\|\s*(?P<number>\d+)\|\s*\[\w+:cpu:\d+\]\|\s*(?P<name>[^|]+?)\s*\|",
    ),
    _line("on_cpu", "0.3.36", "not a GPU: ", r"the default device is not a GPU: '(?P<name>[^']+)'"),
    _line("devices", ALL, "CUDA devices|ROCm devices", r"\bfound (?P<count>\d{1,6}) (?:CUDA|ROCm) devices"),
    _line("no_device", "0.2.24 to 0.2.56", "devices found", r"\bno (?:CUDA|ROCm) devices found"),
    _line(
        "no_device",
        "Ollama, which starts llama.cpp",
        "no compatible GPUs|library=cpu",
        r"no compatible GPUs were discovered|inference compute.{0,60}\blibrary=cpu\b",
    ),
    _line("no_device", "rocBLAS", "Tensile host", r"Could not initialize Tensile host: No devices found"),
    _line(
        "no_other_device",
        "0.2.75 to 0.3.36",
        "No devices found|no SYCL device",
        r"ggml_vulkan: (?:Error: )?No devices found|no SYCL device available",
    ),
    _line(
        "init_failed",
        "0.2.75 to 0.3.36",
        "failed to initialize",
        r"failed to initialize (?:CUDA|ROCm|MUSA): (?P<said>.+)",
    ),
    _line(
        "no_gpu_support",
        "0.2.11 to 0.3.36",
        "GPU offload support|without GPU support|no usable GPU found",
        r"not compiled with GPU offload support|llama\.cpp was compiled without GPU support"
        r"|no usable GPU found",
    ),
    _line("blas", "0.1.65 to 0.2.90", "BLAS = ", r"\bBLAS = (?P<value>[01])"),
    _line(
        "features",
        "0.2.11 to 0.3.36",
        "ystem_info|ystem Info|CPU : |YSTEM",
        r"(?i:\bSystem Info:|\bsystem_info:)|\bCPU : ",
    ),
    _line(
        "wheel_reason",
        "wheels of this project; the second wording before December 2026",
        "computes on the CPU",
        r"computes on the CPU although (?:this machine has an NVIDIA GPU|an NVIDIA card is there)\. (?P<said>.+)",
    ),
    _line(
        "backend",
        "0.3.2 to 0.3.36",
        "failed to load",
        r"(?:ggml_backend_|load_)\w*: failed to load \S+: (?P<said>.+)",
    ),
)

_GPU_ERRORS = (
    _line(
        "gpu_error",
        "0.2.56 to 0.3.36",
        "CUDA error: |ROCm error: |MUSA error: |HIP error: ",
        r"\b(?:CUDA|ROCm|MUSA|HIP) error: (?P<said>.+)",
    ),
    _line(
        "gpu_error",
        CUDA_2023,
        "CUDA error |hipBLAS error |cuBLAS error ",
        r"\b(?:CUDA|cuBLAS|hipBLAS) error (?P<number>\d+) at [^ ]+:\d+(?:: (?P<said>.+))?",
    ),
    _line(
        "gpu_error",
        "PyTorch, CuPy and others in the same process",
        "CUBLAS_STATUS_",
        r"(?P<said>CUBLAS_STATUS_(?:ALLOC_FAILED|NOT_INITIALIZED|ARCH_MISMATCH|EXECUTION_FAILED))",
    ),
    _line(
        "gpu_error",
        "CUDA's and ROCm's own texts, whatever prints them",
        "driver version is insufficient|unsupported toolchain|forward compatibility was|-capable device",
        r"(?P<said>CUDA driver version is insufficient for CUDA runtime version|forward compatibility was attempted.*"
        r"|(?:the )?provided PTX was compiled with an unsupported toolchain"
        r"|no (?:CUDA|ROCm)-capable device is detected)",
    ),
    _line(
        "out_of_memory",
        "0.2.56 to 0.3.36",
        "Malloc failed: out of memory|ErrorOutOfDeviceMemory|Device memory allocation of size",
        r"(?:cuda|hip)Malloc failed: out of memory|ErrorOutOfDeviceMemory|Device memory allocation of size \d+ failed",
    ),
    _line(
        "out_of_memory",
        "0.2.75 to 0.3.36",
        "failed to allocate|unable to allocate",
        r"(?:failed|unable) to allocate (?:CUDA|ROCm|Vulkan|SYCL)\d+ buffer",
    ),
    _line(
        "no_kernel",
        "0.2.56 to 0.3.36",
        "device code compatible|compiled with any CUDA arch",
        r"has no device code compatible with (?P<kind>CUDA|HIP) arch (?P<arch>\d+)"
        r"|not compiled with any CUDA arch <= (?P<at_most>\d+)",
    ),
    _line(
        "no_kernel",
        "0.2.56 to 0.3.36",
        "kernel image|invalid device function",
        r"no kernel image is available|device kernel image is invalid|\binvalid device function",
    ),
    _line("out_of_memory", "Metal", "CallbackErrorOutOfMemory", r"kIOGPUCommandBufferCallbackErrorOutOfMemory"),
    _line("no_kernel", "ROCm", "hipErrorNoBinaryForGpu", r"hipErrorNoBinaryForGpu"),
    _line(
        "no_kernel",
        "rocBLAS",
        "TensileLibrary",
        r"rocBLAS error: Cannot read \S*TensileLibrary\S* (?:for GPU arch|.*Illegal seek for GPU arch) ?: ?\w+",
    ),
    _line(
        "gpu_lost",
        "NVIDIA's kernel module",
        "Xid|API mismatch|fallen off the bus|version mismatch|GPU is lost",
        r"(?P<said>NVRM: Xid .+|NVRM: API mismatch: .+|GPU .{0,100}\bhas fallen off the bus"
        r"|GPU has fallen off the bus|GPU is lost"
        r"|Failed to initialize NVML: Driver/library version mismatch)",
    ),
)

_CRASHES = (
    # Before or after a plan; with the sizes of the memory there is better evidence.
    _line(
        "doubtful",
        "llama.cpp and Ollama: a backend that did not start, a cache or a device on the CPU",
        "failed to initialize|ggml_metal_init: error|ggml_backend_init|device=CPU|pthread-|GGML_ABORT",
        r"failed to initialize \w+ backend|ggml_metal_init: error|failed to find ggml_backend_init"
        r"|\bdevice=CPU\b|\bpthread-\S|GGML_ABORT\(",
    ),
    _line(
        "illegal_instruction",
        "shells, Python, Linux and Windows",
        "llegal instruction|llegal Instruction|llegal hardware|SIGILL|ILLEGAL_INSTRUCTION|invalid opcode|0xc000001d"
        "|0xC000001D|EXC_BAD_INSTRUCTION",
        r"\b[Ii]llegal (?:[Ii]|hardware i)nstruction\b|SIGILL|STATUS_ILLEGAL_INSTRUCTION|trap invalid opcode"
        r"|0x[cC]000001[dD]|EXC_BAD_INSTRUCTION",
    ),
    _line(
        "illegal_instruction",
        "Windows in decimal, containers and shells (128 + 4)",
        "3221225501|1073741795|code 132|status 132|signal 4|code: 132",
        r"\b3221225501\b|-1073741795\b|\b(?:exit(?:ed)?|terminated).{0,200}\b(?:code|status):? 132\b|\bsignal 4\b",
    ),
    _line(
        "crash",
        "shells, Python, Linux and Windows",
        "egmentation fault|general protection|segfault at|access violation|0xc0000005|0xC0000005|3221225477|1073741819"
        "|SIGSEGV|code 139|status 139|code: 139",
        r"(?P<said>[Ss]egmentation fault|general protection fault|segfault at \S+|[Aa]ccess violation\b.*"
        r"|0x[cC]0000005|3221225477|-1073741819|SIGSEGV|exit(?:ed)?.{0,200}\b(?:code|status):? 139\b)",
    ),
    _line(
        "crash",
        "shells, ggml and Windows",
        "GGML_ASSERT|Aborted (core dumped)|error: Aborted|SIGABRT|0xc0000409|0xC0000409|3221226505|1073740791"
        "|code 134|code: 134",
        r"(?P<said>GGML_ASSERT.*|Aborted \(core dumped\)|Fatal Python error: Aborted|SIGABRT|0x[cC]0000409|3221226505"
        r"|-1073740791|exit(?:ed)?.{0,200}\b(?:code|status):? 134\b)",
    ),
    _line(
        "crash",
        "Vulkan, ROCm and Metal, when a GPU fails",
        "ErrorDeviceLost|DeviceLostError|Memory access fault by GPU|HSA_STATUS_ERROR|amdgpu: GPU reset begin",
        r"(?P<said>(?:vk::)?\S{0,60}(?:ErrorDeviceLost|DeviceLostError)|Memory access fault by GPU.*"
        r"|HSA_STATUS_ERROR\w*"
        r"|amdgpu: GPU reset begin)",
    ),
    _line(
        "crash",
        "zsh, C++, systemd, Slurm, ggml from 0.2.75 to 0.3.36, and servers that start llama.cpp as a process",
        "zsh: abort|zsh: killed|std::bad_alloc|11/SEGV|4/ILL|6/ABRT|9/KILL|result 'oom-kill'|oom_kill event"
        "|runner process has terminated|fatal error| Killed  |failed to compute graph|graph_compute_async failed",
        r"(?P<said>zsh: (?:abort|killed)\b|std::bad_alloc|status=(?:11/SEGV|4/ILL|6/ABRT|9/KILL)|result 'oom-kill'"
        r"|oom_kill event|runner process has terminated.*|ggml\S*\.(?:cu|c|cpp|m|cuh):\d+: fatal error|\d Killed  "
        r"|failed to compute graph, compute status: -[123]\b|graph_compute_async failed with error -\d+)",
    ),
    _line(
        "killed",
        "Linux, shells and containers",
        "Killed process|oom-kill|SIGKILL|code 137|code: 137|OOMKilled",
        r"(?P<said>Out of memory: Killed process \d+ \S+|oom-kill:\S+|SIGKILL|OOMKilled"
        r"|exit(?:ed)?.{0,200}\b(?:code|status):? 137\b)",
    ),
    _line(
        "load_error",
        ALL,
        "error loading model|ailed to load model|Failed to create llama_context|failed to initialize the context"
        "|failed to allocate compute|failed to allocate buffer for kv|unable to allocate|llama_decode returned -"
        "|failed to decode, ret",
        r"(?:error loading model(?: \w+)?: |failed to initialize the context: )(?P<said>.+)"
        r"|(?P<plain>[Ff]ailed to load model\b.*|Failed to create llama_context"
        r"|failed to allocate compute \w*\s?buffers|failed to allocate buffer for kv cache"
        r"|unable to allocate \w+ buffer|llama_decode returned -[23]\b|failed to decode, ret = -[23]\b)",
    ),
)

_IMPORT_WORDS = (
    "cannot open shared object|GLIBC|CXXABI_|undefined symbol|with base name|Could not find module|DLL load failed"
    "|[WinError |invalid ELF header|wrong ELF class|file too short|incompatible architecture|No module named"
    "|Error loading shared library|Error relocating|Library not loaded|executable stack|failed to map segment"
    "|cannot import name|has no attribute 'Llama'"
    "|0xc0000135|0xC0000135|3221225781|1073741515|0xc000007b|0xC000007B|3221225595|1073741701|symbol not found"
)
_IMPORTS = (
    _line(
        "import_error",
        "Python, glibc, musl, macOS and Windows",
        _IMPORT_WORDS,
        r"(?P<said>"
        r"[\w.+-]+\.so[\w.]*: cannot open shared object file.*|(?:\S+: )?version [`']\w+_[\d.]+'? not found.*"
        r"|(?:\S+: )?undefined symbol: \S+.*|Shared library with base name .*|Could not find module .*"
        r"|DLL load failed.*|\[WinError (?:126|127|193|1114)\].*|\[WinError [23]\].*CUDA.*"
        r"|(?:\S+: )?invalid ELF header.*|(?:\S+: )?wrong ELF class.*|(?:\S+: )?file too short.*"
        r"|incompatible architecture.*|No module named \S+"
        r"|Error loading shared library .*|Error relocating .*|Library not loaded: .*"
        r"|(?:\S+: )?cannot enable executable stack.*|(?:\S+: )?failed to map segment.*"
        r"|(?:0x[cC]0000135|3221225781|-1073741515)|(?:0x[cC]000007[bB]|3221225595|-1073741701)"
        r"|cannot import name \S+ from (?:partially initialized module )?'llama_cpp.*"
        r"|module 'llama_cpp' has no attribute 'Llama'"
        r"|symbol not found in flat namespace.*)",
    ),
)

LINES = (*_PLACES, *_PROCESS, *_GPU_ERRORS, *_CRASHES, *_IMPORTS)
"""All of them, in the order in which they are tried."""

_WITH_WORD: dict[str, list[int]] = {}
for _place, _known in enumerate(LINES):
    for _word in _known.words:
        _WITH_WORD.setdefault(_word, []).append(_place)

WORDS = tuple(_WITH_WORD)
"""All words: a line without any of them says nothing."""

ERRORS = (
    ("out_of_memory", re.compile(r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|memory allocation failed")),
    ("no_kernel", re.compile(r"no kernel image|kernel image is invalid|invalid device function|ARCH_MISMATCH")),
    ("ptx_too_new", re.compile(r"provided PTX was compiled with an unsupported toolchain|unsupported PTX version")),
    ("forward_compatibility", re.compile(r"forward compatibility was attempted")),
    ("driver_too_old", re.compile(r"driver version is insufficient")),
    ("no_device", re.compile(r"no (?:CUDA|ROCm)-capable device")),
)
"""The meanings of CUDA's and ROCm's own texts, whatever printed them. Any other is an error of its own."""

NUMBERS = {2: "out_of_memory", 35: "driver_too_old", 98: "no_kernel", 100: "no_device", 200: "no_kernel"}
NUMBERS.update({209: "no_kernel", 222: "ptx_too_new", 804: "forward_compatibility"})
"""The meanings of the numbers of ``cudaError_t``, as the logs of 2023 print them."""

_CUBLAS_ALLOCATION_FAILED = 3


_WITH_ITS_CAUSE = {"init_failed": "gpu_error", "backend": "import_error"}


def match(line: str) -> list[tuple[str, re.Match[str]]]:
    """Return the kinds of a line, in their order, each with its match.

    An error that llama.cpp survives has its cause in the same line, which is no error of its own.
    """
    places = {place for word in WORDS if word in line for place in _WITH_WORD[word]}
    tried = ((LINES[place].kind, LINES[place].pattern.search(line)) for place in sorted(places))
    found = [(kind, match) for kind, match in tried if match is not None]
    causes = {_WITH_ITS_CAUSE.get(kind) for kind, _ in found}
    return [(kind, match) for kind, match in found if kind not in causes]


def meaning(found: re.Match[str], line: str) -> str:
    """Return what an error of the GPU means: a name of ``ERRORS``, or ``gpu_error`` for any other."""
    parts = found.groupdict()
    text = parts.get("said") or ""
    for name, pattern in ERRORS:
        if pattern.search(text):
            return name
    number = int(parts.get("number") or 0)
    if "BLAS error" in line:
        return "out_of_memory" if number == _CUBLAS_ALLOCATION_FAILED else "gpu_error"
    return NUMBERS.get(number, "gpu_error")
