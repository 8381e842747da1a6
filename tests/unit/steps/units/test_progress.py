import pytest

from build_config.steps.units import progress

CUDA_LINE = "[3/156] Building CUDA object llama.cpp/ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/fattn.cu.o"


def test_ninjas_lines_are_read() -> None:
    assert progress.parse_line(CUDA_LINE) == "llama.cpp/ggml/src/ggml-cuda/CMakeFiles/ggml-cuda.dir/fattn.cu.o"
    linked = progress.parse_line("[156/156] Linking CXX shared module unit/libggml-cuda-sm89.so")
    assert linked == "unit/libggml-cuda-sm89.so"
    assert progress.parse_line("[2/9] Running a command") == "Running a command"
    assert progress.parse_line("ninja: Entering directory `build'") is None
    assert progress.parse_line("file.cu(3): warning: [1/2] odd") is None


def test_ninjas_log_gives_seconds() -> None:
    text = "# ninja log v7\n12\t61012\t1\ta/fattn.cu.o\tabc\n100\t350\t1\tb.o\tdef\n"
    assert progress.parse_ninja_log(text) == {"a/fattn.cu.o": 61.0, "b.o": 0.25}


def test_the_file_in_work_is_named_from_the_compilers_arguments() -> None:
    call = ("/tools/sccache", "/tk/bin/nvcc", "-DX=a.cu", "-c", "/src/fattn.cu", "-o", "x/fattn.cu.o")
    assert progress.source_of(call) == "fattn.cu"
    assert progress.source_of(("/bin/sh", "-c", " ".join(call) + " && :")) == "fattn.cu"
    assert progress.source_of(("g++", "-shared", "-o", "lib.so", "a.o")) is None


def test_weights_by_path_then_by_name_then_the_default() -> None:
    weights = {"a/x.o": 9.0, "x.o": 5.0}
    assert progress.weight_of("a/x.o", weights) == 9.0
    assert progress.weight_of("b/x.o", weights) == 5.0
    assert progress.weight_of("b/y.o", weights) == progress.DEFAULT_WEIGHT


def test_the_estimate_starts_from_weights_and_moves_to_the_pace_of_this_machine() -> None:
    outputs = tuple(f"{number}.o" for number in range(10))
    estimate = progress.Estimate(outputs, dict.fromkeys(outputs, 10.0), jobs=2, started=0.0)
    assert estimate.total == 100.0
    assert estimate.eta(0.0) == 50.0
    for output in outputs[:5]:
        estimate.finish(output)
    # Half of the work took 100 s instead of the expected 25: the other half will, too.
    assert estimate.eta(100.0) == pytest.approx(100.0)
    for output in outputs[5:]:
        estimate.finish(output)
    assert estimate.eta(200.0) == 0.0
