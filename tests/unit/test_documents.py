"""Compares what the documents say about options, GPUs, toolkits, sessions, exit codes and files with the project."""

import ast
import re

import pytest
import typer.main

from build_config import archs, errors
from build_config.commands import app
from build_config.errors import PipelineError
from build_config.system.layout import PACKAGE

CHECKOUT = PACKAGE.parent
DOCUMENTS = (
    *CHECKOUT.glob("*.md"),
    *CHECKOUT.glob("docs/**/*.md"),
    *CHECKOUT.glob("build_config/**/README.md"),
    CHECKOUT / "vendor" / "README.md",
    CHECKOUT / "wheelhouse" / "README.md",
)
TEXT = {path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8") for path in DOCUMENTS}
README = TEXT["README.md"]
(LOCKED,) = (path.name.split("-")[1] for path in CHECKOUT.glob("build_config/data/locks/cuda-*-linux-x86_64.toml"))
"""The release of the locked CUDA toolkit."""


def section(title: str, text: str = README, *, level: int = 2) -> str:
    marks = "#" * level
    return re.split(rf"\n#{{2,{level}}} ", text.partition(f"\n{marks} {title}\n")[2])[0]


def sessions() -> set[str]:
    """The names that ``nox -l`` prints, read from the source text."""
    tree = ast.parse((CHECKOUT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        next(iter(re.findall(r"name='([^']+)'", ast.unparse(decorator))), node.name)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if ast.unparse(decorator).startswith("nox.session")
    }


def test_troubleshooting_lists_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| \S", TEXT["docs/troubleshooting.md"], re.MULTILINE)

    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PipelineError)]
    assert [(int(code), name) for code, name in rows] == sorted((cls.exit_code, cls.__name__) for cls in classes)


def test_readme_lists_every_option_of_the_main_job() -> None:
    build = typer.main.get_group(app).commands["build"]
    options = {name for parameter in build.params for name in parameter.opts} - {"--help"}

    assert set(re.findall(r"^\| `(--[a-z-]+)", section("Options of the main job"), re.MULTILINE)) == options


def test_readme_names_gpus_and_the_option_that_builds_for_them() -> None:
    table = section("Which `--arch`?")
    rows = re.findall(r"^\| ([^|]+) \| (\d+\.\d) \| `--arch (\d+)`", table, re.MULTILINE)

    assert len(rows) >= 7
    for names, capability, option in rows:
        (shard,) = archs.resolve(option, cuda_release=LOCKED, gpus=()).shards
        assert [arch.capability for arch in shard.archs] == [capability]
        assert names == archs.gpu_names(capability)
    assert f"driver {archs.oldest_driver(LOCKED)} or later" in table


def test_readme_lists_every_session() -> None:
    assert set(re.findall(r"`nox -s ([\w-]+)", section("All commands"))) == sessions()


def test_the_table_of_toolkits_is_that_of_the_data() -> None:
    rows = re.findall(
        r"^\| `([\d.]+)`[^|]* \| ([\d.]+) to ([\d.]+) \| (\d+) \| (\d+) \|", TEXT["docs/toolkits.md"], re.MULTILINE
    )

    assert rows == [
        (
            series.since,
            capability(min(filter(series.builds_for, series.architectures))),
            capability(max(filter(series.builds_for, series.architectures))),
            str(series.gcc),
            str(series.driver_compatible),
        )
        for series in map(archs.toolkit_series, archs.known_releases())
    ]


def test_troubleshooting_sends_older_gpus_to_the_toolkits_that_compile_for_them() -> None:
    text = section("An architecture is not accepted", TEXT["docs/troubleshooting.md"], level=3)
    locked = archs.toolkit_series(LOCKED)
    named = re.findall(r"--cuda ([\d.]+) --arch (\d+)", text)

    assert f"CUDA {LOCKED} compiles for {capability(min(locked.architectures))} and later" in text
    assert not [number for _, number in named if locked.builds_for(int(number))]
    older = {
        major(series.since)
        for series in map(archs.toolkit_series, archs.known_releases())
        if series.since != locked.since
    }
    assert {major(release) for release, _ in named} == older


@pytest.mark.parametrize("name", TEXT)
def test_every_toolkit_that_is_named_compiles_for_its_architecture(name: str) -> None:
    forward = re.findall(r"--cuda ([\d.]+) --arch (\d+)", TEXT[name])
    backward = re.findall(r"--arch (\d+) --cuda ([\d.]+)", TEXT[name])

    for release, number in (*forward, *((release, number) for number, release in backward)):
        assert archs.toolkit_series(release).builds_for(int(number)), (release, number)


@pytest.mark.parametrize("name", TEXT)
def test_no_known_toolkit_is_called_not_covered(name: str) -> None:
    denied = set(re.findall(r"CUDA (\d+)[^.|]*\bnot covered\b", TEXT[name]))

    assert not denied & {major(series.since) for series in map(archs.toolkit_series, archs.known_releases())}


def test_what_conda_forge_has_is_not_called_a_cpu_build() -> None:
    """Its llama-cpp-python has no backend of its own: whether CUDA is used depends on the build of llama.cpp."""
    text = TEXT["docs/conda.md"]

    assert "CPU build" not in text
    assert re.search(r"conda-forge's llama-cpp-python [^#]*depends on [^.]*conda-forge's package\s+`llama\.cpp`", text)


def capability(number: int) -> str:
    return f"{number // 10}.{number % 10}"


def major(release: str) -> str:
    return release.partition(".")[0]


def test_readme_script_is_the_one_that_ci_runs() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)

    assert script in (CHECKOUT / "ci" / "install_from_wheelhouse.sh").read_text(encoding="utf-8")


def test_every_session_that_is_named_exists() -> None:
    known = sessions()

    for name, text in TEXT.items():
        for called in re.findall(r"nox -s ((?:[a-z_-]*[a-z] ?)+)", text):
            words = [word for word in called.split() if not word.startswith("-")]
            assert words[0] in known, f"{name} names the session {words[0]}"


@pytest.mark.parametrize("name", TEXT)
def test_links_lead_to_something(name: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT[name]):
        file, _, anchor = target.partition("#")
        path = (CHECKOUT / name).parent / file if file else CHECKOUT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["docs/security.md", "docs/measurements/reliability.md", "docs/windows.md"])
def test_every_test_and_module_that_is_named_exists(name: str) -> None:
    text = TEXT[name]
    sources = [path.read_text(encoding="utf-8") for path in (CHECKOUT / "tests").rglob("test_*.py")]
    tests = {found for source in sources for found in re.findall(r"^def (test_\w+)", source, re.MULTILINE)}
    named = set(re.findall(r"`(test_\w+)", text))
    assert named
    assert not named - tests
    for path in re.findall(r"`((?:[\w.]+/)+[\w.]+|check_gpu|noxfile\.py)`", text):
        assert (CHECKOUT / path).exists() or (PACKAGE / path).exists(), path
