"""The lines with which each client installs from an index; docs/installing.md says what goes wrong without them."""

from __future__ import annotations

from dataclasses import dataclass

from build_config.formats import variants
from build_config.model import DISTRIBUTION

NAME = "llama-cuda"
"""The name of the index in the files of a project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snippet:
    """Lines for a client: commands for a shell, or a part of the file ``file`` of a project."""

    client: str
    text: str
    file: str | None = None


def of_variants(url: str) -> Snippet:
    """The line for the only client that reads wheel variants. ``url`` is the address of their index."""
    line = f"uv pip install --index {url} {' '.join(variants.UV_OPTIONS)} {DISTRIBUTION}"
    return Snippet(client="uv, a preview", text=line)


def snippets(url: str) -> tuple[Snippet, ...]:
    """The lines for all clients. ``url`` is the address of one index, with a slash at the end."""
    pip = f"pip install --extra-index-url {url} --only-binary {DISTRIBUTION} {DISTRIBUTION}"
    return (
        Snippet(client="pip", text=pip),
        Snippet(client="uv", text=f"uv pip install --index {url} {DISTRIBUTION}"),
        Snippet(
            client="uv, in a project",
            file="pyproject.toml",
            text=f"""\
[project]
dependencies = ["{DISTRIBUTION}"]

[tool.uv]
no-build-package = ["{DISTRIBUTION}"]

[[tool.uv.index]]
name = "{NAME}"
url = "{url}"
explicit = true

[tool.uv.sources]
{DISTRIBUTION} = {{ index = "{NAME}" }}""",
        ),
        Snippet(
            client="Poetry",
            text=f"poetry source add --priority explicit {NAME} {url}\npoetry add --source {NAME} {DISTRIBUTION}",
        ),
        Snippet(
            client="PDM",
            file="pyproject.toml",
            text=f"""\
[project]
dependencies = ["{DISTRIBUTION}"]

[[tool.pdm.source]]
name = "{NAME}"
url = "{url}"
include_packages = ["{DISTRIBUTION}"]

[[tool.pdm.source]]
name = "pypi"
url = "https://pypi.org/simple"

[tool.pdm.resolution]
respect-source-order = true""",
        ),
        Snippet(
            client="pixi",
            file="pixi.toml",
            text=f"""\
[pypi-dependencies]
{DISTRIBUTION} = {{ version = "*", index = "{url}" }}""",
        ),
        Snippet(client="conda", text=f"conda create --name llama python pip\nconda run --name llama {pip}"),
    )
