"""Facts of the model that cannot be imported everywhere are compared with their copies."""

import ast
import tomllib

import pytest

from build_config import model
from build_config.system.layout import PACKAGE

ROOT = PACKAGE.parent


@pytest.mark.parametrize("name", ["noxfile.py", "build_config/build_backend.py"])
def test_what_runs_before_the_environment_asks_for_the_same_python(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(assigned["OLDEST_PYTHON"]) == model.OLDEST_PYTHON


def test_the_tools_check_for_the_same_python() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tools["mypy"]["python_version"] == ".".join(map(str, model.OLDEST_PYTHON))
    assert tools["ruff"]["target-version"] == "py" + "".join(map(str, model.OLDEST_PYTHON))
