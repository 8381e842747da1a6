"""Where a line prints something, and where it quotes it."""

from __future__ import annotations

import pytest

from check_gpu import quotation

pytestmark = pytest.mark.unit

PLAN = "offloaded 33/33 layers to GPU"


def is_printed(line: str) -> bool:
    start = line.index(PLAN)
    return quotation.printed(line, start, start + len(PLAN))


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "load_tensors: {}",
        "llama_model_load_internal: {}",
        "I load_tensors: {}",
        "0.00.123.456 I load_tensors: {}",
        "llama-1  | load_tensors: {}",
        "Nov 28 10:00:00 host python3[2112]: load_tensors: {}",
        "2026-11-28T10:00:00.000000000Z stderr F load_tensors: {}",
        "2026-11-28T10:00:00+00:00 app[web.1]: load_tensors: {}",
        "2026-11-28 10:00:00,123 - llama - INFO - load_tensors: {}",
        "10:00AM DBG GRPC(a.gguf-127.0.0.1:41233): stderr load_tensors: {} component=llama",
        "[10:00:00] INFO     load_tensors: {}      loader.py:12",
        "2026-11-28 10:00:00 [info     ] load_tensors: {} [app]",
        'time=2026-11-28T10:00:00Z level=INFO msg="load_tensors: {}" source=server.go:1',
        "b'load_tensors: {}\\n'",
        "pod-7d9f5 server load_tensors: {}",
    ],
)
def test_the_prefixes_of_logs(form: str) -> None:
    assert is_printed(form.format(PLAN))


@pytest.mark.parametrize(
    "form",
    [
        "The log says load_tensors: {}",
        "The log says: load_tensors: {}",
        "load_tensors: {}, but the GPU is idle.",
        "load_tensors: {} is what I expect",
        "> load_tensors: {}",
        "* load_tensors: {}",
        "$ load_tensors: {}",
        "User: load_tensors: {}",
        "assistant: load_tensors: {}",
        "Output: load_tensors: {}",
        "<|im_start|>user load_tensors: {}",
        "[INST] load_tensors: {} [/INST]",
        "`load_tensors: {}`",
        '"content": "load_tensors: {}"',
        'User: msg="load_tensors: {}"',
        "<p>load_tensors: {}</p>",
        "Im Log steht load_tensors: {}",
    ],
)
def test_prose_and_quotations(form: str) -> None:
    assert not is_printed(form.format(PLAN))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("What does CUDA error: out of memory mean?", "CUDA"),
        ("User: CUDA error: out of memory", "CUDA"),
        ("> why do I see CUDA error: out of memory", "CUDA"),
        ("INFO: request: please explain CUDA error: out of memory", "CUDA"),
        ('{"prompt": "It prints \\"x\\" and CUDA error: out of memory"}', "CUDA"),
        ("A segmentation fault occurs when memory is read that is not there", "segmentation"),
        ("Segmentation fault is an error", "Segmentation"),
        ('the message "CUDA error: out of memory" is new', "CUDA"),
    ],
)
def test_what_people_and_models_say_about_failures(line: str, name: str) -> None:
    assert quotation.quoted(line, line.index(name))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("CUDA error: out of memory", "CUDA"),
        ("CUDA error: no kernel image is available for execution on the device", "CUDA"),
        ("RuntimeError: CUDA error: out of memory", "CUDA"),
        ("RuntimeError('CUDA error: out of memory')", "CUDA"),
        ("ERROR app: generation failed with a CUDA error: out of memory", "CUDA"),
        ("ERROR app: got CUDA error: out of memory. Is another process using the GPU?", "CUDA"),
        ('level=ERROR msg="x" error="CUDA error: out of memory"', "CUDA"),
        ('prompt="hello" finished; CUDA error: out of memory', "CUDA"),
        ("./run.sh: line 3: 12345 Segmentation fault      (core dumped) python app.py", "Segmentation"),
        ("[ERROR] Worker (pid:71) was sent SIGKILL! Perhaps out of memory?", "SIGKILL"),
    ],
)
def test_failures_that_are_not_quoted(line: str, name: str) -> None:
    assert not quotation.quoted(line, line.index(name))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", True),
        ("load_tensors: offloading 32 repeating layers to GPU", True),
        ("srv    load_model: loading model", True),
        (".........", True),
        ("llama-1  | print_info: arch = llama", True),
        ("I see this:", False),
        ("but the GPU is idle", False),
        ("INFO:     Uvicorn running on http://127.0.0.1:8000", False),
    ],
)
def test_the_form_of_the_lines_of_llama_cpp(line: str, *, expected: bool) -> None:
    assert quotation.own(line) is expected


def test_a_warning_of_python_is_survived() -> None:
    line = "/v/app.py:12: UserWarning: CUDA error: out of memory"
    assert quotation.survived(line, line.index("CUDA"))
    assert not quotation.survived("Warning: CUDA error: out of memory, falling back to CPU", 9)
