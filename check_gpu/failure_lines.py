"""The lines of a process that ended, a model that could not be used, and an import that failed."""

from __future__ import annotations

from check_gpu.lines import ALL, line

_CRASHES = (
    # Before or after a plan; with the sizes of the memory there is better evidence.
    line(
        "doubtful",
        "llama.cpp and Ollama: a backend that did not start, a cache or a device on the CPU",
        "failed to initialize|ggml_metal_init: error|ggml_backend_init|device=CPU|pthread-|GGML_ABORT",
        r"failed to initialize \w+ backend|ggml_metal_init: error|failed to find ggml_backend_init"
        r"|\bdevice=CPU\b|\bpthread-\S|GGML_ABORT\(",
    ),
    line(
        "illegal_instruction",
        "shells, Python, Linux and Windows",
        "llegal instruction|llegal Instruction|llegal hardware|SIGILL|ILLEGAL_INSTRUCTION|invalid opcode|0xc000001d"
        "|0xC000001D|EXC_BAD_INSTRUCTION",
        r"\b[Ii]llegal (?:[Ii]|hardware i)nstruction\b|SIGILL|STATUS_ILLEGAL_INSTRUCTION|trap invalid opcode"
        r"|0x[cC]000001[dD]|EXC_BAD_INSTRUCTION",
    ),
    line(
        "illegal_instruction",
        "Windows in decimal, containers and shells (128 + 4)",
        "3221225501|1073741795|code 132|status 132|signal 4|code: 132",
        r"\b3221225501\b|-1073741795\b|\b(?:exit(?:ed)?|terminated).{0,200}\b(?:code|status):? 132\b|\bsignal 4\b",
    ),
    line(
        "crash",
        "shells, Python, Linux and Windows",
        "egmentation fault|general protection|segfault at|access violation|0xc0000005|0xC0000005|3221225477|1073741819"
        "|SIGSEGV|code 139|status 139|code: 139",
        r"(?P<said>[Ss]egmentation fault|general protection fault|segfault at \S+|[Aa]ccess violation\b.*"
        r"|0x[cC]0000005|3221225477|-1073741819|SIGSEGV|exit(?:ed)?.{0,200}\b(?:code|status):? 139\b)",
    ),
    line(
        "crash",
        "shells, ggml and Windows",
        "GGML_ASSERT|Aborted (core dumped)|error: Aborted|SIGABRT|0xc0000409|0xC0000409|3221226505|1073740791"
        "|code 134|code: 134",
        r"(?P<said>GGML_ASSERT.*|Aborted \(core dumped\)|Fatal Python error: Aborted|SIGABRT|0x[cC]0000409|3221226505"
        r"|-1073740791|exit(?:ed)?.{0,200}\b(?:code|status):? 134\b)",
    ),
    line(
        "crash",
        "Vulkan, ROCm and Metal, when a GPU fails",
        "ErrorDeviceLost|DeviceLostError|Memory access fault by GPU|HSA_STATUS_ERROR|amdgpu: GPU reset begin",
        r"(?P<said>(?:vk::)?\S{0,60}(?:ErrorDeviceLost|DeviceLostError)|Memory access fault by GPU.*"
        r"|HSA_STATUS_ERROR\w*"
        r"|amdgpu: GPU reset begin)",
    ),
    line(
        "crash",
        "zsh, C++, systemd, Slurm, ggml from 0.2.75 to 0.3.36, and servers that start llama.cpp as a process",
        "zsh: abort|zsh: killed|std::bad_alloc|11/SEGV|4/ILL|6/ABRT|9/KILL|result 'oom-kill'|oom_kill event"
        "|runner process has terminated|fatal error| Killed  |failed to compute graph|graph_compute_async failed",
        r"(?P<said>zsh: (?:abort|killed)\b|std::bad_alloc|status=(?:11/SEGV|4/ILL|6/ABRT|9/KILL)|result 'oom-kill'"
        r"|oom_kill event|runner process has terminated.*|ggml\S*\.(?:cu|c|cpp|m|cuh):\d+: fatal error|\d Killed  "
        r"|failed to compute graph, compute status: -[123]\b|graph_compute_async failed with error -\d+)",
    ),
    line(
        "killed",
        "Linux, shells and containers",
        "Killed process|oom-kill|SIGKILL|code 137|code: 137|OOMKilled",
        r"(?P<said>Out of memory: Killed process \d+ \S+|oom-kill:\S+|SIGKILL|OOMKilled"
        r"|exit(?:ed)?.{0,200}\b(?:code|status):? 137\b)",
    ),
    line(
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
    line(
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


LINES = (*_CRASHES, *_IMPORTS)
