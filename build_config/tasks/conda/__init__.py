"""Make a conda package of a finished wheel, and a channel of such packages.

Every file of the wheel is in the package unchanged, except three that describe the installation: METADATA without the
requirements that conda fulfils in another way, INSTALLER, and RECORD, which lists both. Nothing is compiled or linked
again, so the libraries are those that were inspected and validated.
"""

from __future__ import annotations

from build_config.tasks.conda.channel import pack, publish
from build_config.tasks.conda.description import CondaPackage, Names, describe, read_names

__all__ = ["CondaPackage", "Names", "describe", "pack", "publish", "read_names"]
