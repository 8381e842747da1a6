"""The SBOM inside the wheel (PEP 770): a CycloneDX document, the same for the same inputs.

``data/components.toml`` lists the components and the places of their versions. The only facts about the machine are the
compiler's version, and what auditwheel reports about the libraries that it added.
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
    """Write the wheel with its SBOM into the folder ``out``.

    Raises ``PackagingError`` if the document is not valid.
    """
    contents = wheelfile.read_contents(wheel.path)
    document = describe(ingredients, contents, wheel.path.name)
    if problems := cyclonedx.problems(document):
        raise PackagingError(f"the SBOM of {wheel.path.name} is not valid CycloneDX: {'; '.join(problems)}")
    return wheelfile.write_normalised(wheel.path, out / wheel.path.name, extra={cyclonedx.MEMBER: document.encode()})


def source_digest() -> str:
    """A digest of the code that writes the document: other code makes another wheel."""
    files = (*sorted(Path(__file__).parent.glob("*.py")), Path(cyclonedx.__file__))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
