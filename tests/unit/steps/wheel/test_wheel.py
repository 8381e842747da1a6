from pathlib import Path

from build_config.steps import wheel
from build_config.system import jsonio
from tests.support import publishable


def test_a_wheel_of_the_store_is_taken_only_while_its_bytes_are_the_same(tmp_path: Path) -> None:
    assert wheel.stored(tmp_path / "none") is None
    made, *_ = publishable.make(tmp_path / "kept")
    assert wheel.stored(made.path.parent) is None, "without its digest it proves nothing"
    jsonio.write(made.path.parent / wheel.DIGEST, made.sha256)
    kept = wheel.stored(made.path.parent)
    assert kept is not None
    assert kept.sha256 == made.sha256
    made.path.write_bytes(b"wheeL")
    assert wheel.stored(made.path.parent) is None
