"""The lines of a process that ended, a model that could not be used, and an import that failed."""

from __future__ import annotations

from check_gpu.lines import ALL, line

_ENDED = (
    "xit code|xit Code|xit status|xit Status|exited|xitCode|xitcode|eturncode|ed with code|ed with status|code: |ignal "
    "|ignal: "
)


def _status(*numbers: int) -> str:
    """Return the pattern of an exit status: of signals as shells count them (128 + 4), or as Python does (-4)."""
    either = "|".join(f"{128 + number}|-{number}" for number in numbers)
    code = r"\b(?:[Ee]xit(?:ed|s)?|[Tt]erminated|[Ff]inished|[Dd]ied)\b.{0,200}?\b(?:[Cc]ode|[Ss]tatus)"
    return rf"(?:{code}|\b(?:[Ee]xit|[Rr]eturn)_?[Cc]ode)\b[\s:=\[(\"']{{1,12}}(?:{either})\b(?!\.\d)"


def _signal(numbers: str) -> str:
    """Return the pattern of a signal that is named by its number."""
    return rf"\b[Ss]ignal:? \[?(?:{numbers})\b(?!\.\d)"


_CRASHES = (
    # Before or after a plan; with the sizes of the memory there is better evidence.
    line(
        "doubtful",
        "llama.cpp and Ollama: a backend that did not start, a cache or a device on the CPU",
        "failed to initialize|ggml_metal_init: error|ggml_backend_init|device=CPU|pthread-|GGML_ABORT|alling back to",
        r"failed to initialize \w+ backend|ggml_metal_init: error|failed to find ggml_backend_init"
        r"|\bdevice=CPU\b|\bpthread-\S|GGML_ABORT\(|[Ff]alling back to (?:the )?CPU",
    ),
    line(
        "illegal_instruction",
        "shells, Python, Linux and Windows",
        "llegal instruction|llegal Instruction|llegal hardware|SIGILL|ILLEGAL_INSTRUCTION|invalid opcode|0xc000001d"
        "|0xC000001D|EXC_BAD_INSTRUCTION|4/ILL",
        r"\b[Ii]llegal (?:[Ii]|hardware i)nstruction\b|SIGILL|STATUS_ILLEGAL_INSTRUCTION|trap invalid opcode"
        r"|0x[cC]000001[dD]|EXC_BAD_INSTRUCTION|status=4/ILL",
    ),
    line(
        "illegal_instruction",
        "Windows in decimal, containers and shells",
        f"3221225501|1073741795|{_ENDED}",
        rf"\b3221225501\b|-1073741795\b|{_status(4)}|{_signal('4')}",
    ),
    line(
        "crash",
        "shells, Python, Linux and Windows",
        "egmentation fault|general protection|segfault at|access violation|0xc0000005|0xC0000005|3221225477|1073741819"
        "|SIGSEGV|SIGBUS|SIGFPE|us error|loating point exception|loating-point exception",
        r"(?P<said>[Ss]egmentation fault|general protection fault|segfault at \S+|[Aa]ccess violation\b.*"
        r"|0x[cC]0000005|3221225477|-1073741819|SIGSEGV|SIGBUS|SIGFPE|(?:^|[:\]\d] +)[Bb]us error"
        r"|(?:^|[:\]\d] +)[Ff]loating[ -]point exception)",
    ),
    line(
        "crash",
        "shells, ggml and Windows",
        "GGML_ASSERT|Aborted|SIGABRT|0xc0000409|0xC0000409|3221226505|1073740791",
        r"(?P<said>GGML_ASSERT.*|(?:^|[:|\]\d] *)Aborted(?: \(core dumped\)|\s*$)|Fatal Python error: Aborted"
        r"|SIGABRT|0x[cC]0000409|3221226505|-1073740791)",
    ),
    line(
        "crash",
        "containers, shells, systemd, PM2, Kubernetes and Python: the status of a process that a signal ended",
        f"{_ENDED}|11/SEGV|6/ABRT|7/BUS|8/FPE",
        rf"(?P<said>{_status(6, 7, 8, 11)}|{_signal('6|7|8|11')}|status=(?:11/SEGV|6/ABRT|7/BUS|8/FPE))",
    ),
    line(
        "crash",
        "zsh, C++, ggml from 0.2.75 to 0.3.36, and servers that start llama.cpp as a process",
        "zsh: abort|std::bad_alloc|runner process has terminated|fatal error|failed to compute graph"
        "|graph_compute_async failed",
        r"(?P<said>zsh: abort\b|std::bad_alloc"
        r"|runner process has terminated.*|ggml\S*\.(?:cu|c|cpp|m|cuh):\d+: fatal error"
        r"|failed to compute graph, compute status: -[123]\b|graph_compute_async failed with error -\d+)",
    ),
    # For its memory; and by a signal that anyone can send, also to end it on request.
    line(
        "crash",
        "Linux, systemd, Slurm, Docker and Kubernetes",
        "Killed process|oom-kill|oom_kill event|OOMKilled|oomd killed|earlyoom",
        r"(?P<said>Out of memory: Killed process \d+ \S+|Memory cgroup out of memory: Killed process \d+ \S+"
        r"|result 'oom-kill'|oom-kill:\S+|oom_kill event|OOMKilled(?!\W+false)"
        r"|systemd-oomd killed|earlyoom.{0,80}sending SIG\w+)",
    ),
    line(
        "stopped",
        "Docker Compose, systemd, Kubernetes, supervisord, PM2, Uvicorn, Gunicorn and llama-server",
        "Stopping|Stopped|stop-sig|with signal SIGKILL|with SIGKILL|Gracefully stopping|SIGTERM|SIGINT|hutting down"
        "|KeyboardInterrupt|Killing container|still alive after|to stop|cleaning up before exit|econd interrupt"
        "|signal=15|using the force|StopSignal|signal: term|signal: int|signal: quit",
        r"Gracefully stopping|systemd\[\d+\]: Stopping |\bStopping (?:\S+ *\.\.\.|app:|container |\S+\.service)"
        r"|\bContainer \S+ +Stopp|\bStopped \S+\.service|State 'stop-\w+' timed out"
        r"|Killing process \d+ \(.*?\) with signal SIGKILL|killing '\S+' \(\d+\) with SIGKILL"
        r"|\b(?:[Rr]eceived|[Cc]aught|[Gg]ot|[Ss]ending|[Bb]y|[Vv]ia)\W+(?:signal\W+)?SIG(?:TERM|INT)\b"
        r"|[Ss]hutting down|^KeyboardInterrupt|Killing container|still alive after \d+ ?ms|waiting for \S+ to stop"
        r"|cleaning up before exit|[Rr]eceived second interrupt|signal=15\b|using the force|StopSignal SIG\w+"
        r"|Handling signal: (?:term|int|quit)",
    ),
    line(
        "killed",
        "Linux, shells, containers and systemd",
        f"SIGKILL|9/KILL|zsh: killed|Killed|{_ENDED}",
        r"(?P<said>SIGKILL|status=9/KILL|zsh: killed\b|(?:^|[:|\]\d] *)Killed(?:  +\S|\s*$)"
        rf"|{_status(9)}|{_signal('9')})",
    ),
    line(
        "load_error",
        ALL,
        "error loading model|ailed to load model|Failed to create llama_context|failed to initialize the context"
        "|failed to allocate compute|failed to allocate buffer for kv|unable to allocate|code returned -"
        "|llama_eval returned|failed to decode|failed to encode|failed to eval|Invalid input batch|Compute error",
        r"(?:error loading model(?: \w+)?: |failed to initialize the context: )(?P<said>.+)"
        r"|(?P<plain>[Ff]ailed to load model\b.*|Failed to create llama_context"
        r"|failed to allocate compute \w*\s?buffers|failed to allocate buffer for kv cache"
        r"|unable to allocate \w+ buffer|llama_(?:en|de)code returned -\d+|llama_eval returned [1-9]\d*"
        r"|failed to (?:en|de)code\b.{0,80}\b(?:ret|res) = -\d+|failed to (?:en|de)code (?:image|text|audio)\b"
        r"|failed to eval(?:uate)?\b.*|(?:Invalid input batch|Compute error)\..{0,80}ret = -\d+)",
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
