"""The list of what is in the wheel, inside the wheel (PEP 770): CycloneDX, the same for the same inputs.

What is named, and where its version is written, is data (``data/components.toml``). Nothing of the machine gets in but
the compiler's version, and what auditwheel says of the libraries that it brought along.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from build_config.errors import PackagingError
from build_config.formats import cyclonedx, wheelfile
from build_config.steps.wheel.sbom.document import describe

if TYPE_CHECKING:
    from build_config.model import Wheel
    from build_config.steps.wheel.sbom.ingredients import Ingredients


def add(wheel: Wheel, ingredients: Ingredients, out: Path) -> Wheel:
    """Write the wheel again, with its list in it, into the folder ``out``.

    Raises ``PackagingError`` where the document would not be valid.
    """
    contents = wheelfile.read_contents(wheel.path)
    document = describe(ingredients, contents, wheel.path.name)
    if problems := cyclonedx.problems(document):
        raise PackagingError(f"the SBOM of {wheel.path.name} is not valid CycloneDX: {'; '.join(problems)}")
    return wheelfile.write_normalised(wheel.path, out / wheel.path.name, extra={cyclonedx.MEMBER: document.encode()})


def source_digest() -> str:
    """A digest of the code that writes the document: with other code, another wheel."""
    files = (*sorted(Path(__file__).parent.glob("*.py")), Path(cyclonedx.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
