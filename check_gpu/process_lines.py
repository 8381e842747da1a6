"""The lines that a process prints about its build, its backends and its devices, before it loads a model."""

from __future__ import annotations

from check_gpu.lines import ALL, line

LINES = (
    line(
        "in_use",
        "0.3.2 to 0.3.36",
        "using device",
        r"using device (?P<device>\w+(?:\[[^\]]*\])?) \((?P<name>.+?)\)(?: \(|\s+-)",
    ),
    line(
        "listed",
        "0.1.78 to 0.3.36",
        "compute capability",
        r"\bDevice (?P<number>\d+): (?P<name>.+?), compute capability (?P<capability>\d+\.\d+)",
    ),
    line(
        "named",
        "0.2.56 to 0.2.90",
        "uma: ",
        r"\b(?P<device>Vulkan\d+): (?P<name>.+?)(?: \([^()|]*\))? \| uma: ",
    ),
    line(
        "named",
        "0.3.2 to 0.3.36",
        "ggml_vulkan: ",
        r"ggml_vulkan: (?P<number>\d+) = (?P<name>.+?) \([^()|]*\) \| uma",
    ),
    # Devices of a GPU's backend that compute on the CPU; the first line follows that of its device.
    line("on_cpu", "0.2.56 to 0.3.36", "Device type is CPU", r"ggml_vulkan: Warning: Device type is CPU"),
    line(
        "on_cpu",
        "0.3.36",
        ":cpu:",
        r"\|\s*(?P<number>\d+)\|\s*\[\w+:cpu:\d+\]\|\s*(?P<name>[^|]+?)\s*\|",
    ),
    line("on_cpu", "0.3.36", "not a GPU: ", r"the default device is not a GPU: '(?P<name>[^']+)'"),
    line("devices", ALL, "CUDA devices|ROCm devices", r"\bfound (?P<count>\d{1,6}) (?:CUDA|ROCm) devices"),
    line("no_device", "0.2.24 to 0.2.56", "devices found", r"\bno (?:CUDA|ROCm) devices found"),
    line(
        "no_device",
        "Ollama, which starts llama.cpp",
        "no compatible GPUs|library=cpu",
        r"no compatible GPUs were discovered|inference compute.{0,60}\blibrary=cpu\b",
    ),
    line("no_device", "rocBLAS", "Tensile host", r"Could not initialize Tensile host: No devices found"),
    line(
        "no_other_device",
        "0.2.75 to 0.3.36",
        "No devices found|no SYCL device",
        r"ggml_vulkan: (?:Error: )?No devices found|no SYCL device available",
    ),
    line(
        "init_failed",
        "0.2.75 to 0.3.36",
        "failed to initialize",
        r"failed to initialize (?:CUDA|ROCm|MUSA): (?P<said>.+)",
    ),
    line(
        "no_gpu_support",
        "0.2.11 to 0.3.36",
        "GPU offload support|without GPU support|no usable GPU found",
        r"not compiled with GPU offload support|llama\.cpp was compiled without GPU support"
        r"|no usable GPU found",
    ),
    line("blas", "0.1.65 to 0.2.90", "BLAS = ", r"\bBLAS = (?P<value>[01])"),
    line(
        "features",
        "0.2.11 to 0.3.36",
        "ystem_info|ystem Info|CPU : |YSTEM",
        r"(?i:\bSystem Info:|\bsystem_info:)|\bCPU : ",
    ),
    line(
        "wheel_reason",
        "wheels of this project; the second wording before December 2026",
        "computes on the CPU",
        r"computes on the CPU although (?:this machine has an NVIDIA GPU|an NVIDIA card is there)\. (?P<said>.+)",
    ),
    line(
        "backend",
        "0.3.2 to 0.3.36",
        "failed to load",
        r"(?:ggml_backend_|load_)\w*: failed to load \S+: (?P<said>.+)",
    ),
    # A conversation, in which a person may show the log of another program.
    line(
        "speaker",
        "Chats, LangChain, text-generation-webui and the templates of models",
        "User:|USER:|user:|Human:|You:|Question:|Assistant:|ASSISTANT:|AI:|Bot:|Answer:|im_start|INST]",
        r"(?:^|[|\]] )\s*(?:(?P<person>(?:[Uu]ser|USER|Human|You|Question):|<\|im_start\|>user|\[INST\])"
        r"|(?:Assistant|ASSISTANT|AI|Bot|Answer):|<\|im_start\|>assistant|.*\[/INST\])",
    ),
    # Of a build with a library for each backend, one line for each; "registered" in debug builds.
    line(
        "backend_loaded",
        "0.3.2 to 0.3.36",
        " backend from |registered backend",
        r"(?:\bloaded (?P<name>\w+) backend from|\bregistered backend (?P<registered>\w+) \([1-9])",
    ),
)
