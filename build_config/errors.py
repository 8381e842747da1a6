"""One class and one exit code for each kind of failure.

A message says what failed, what was tried, and what to do next. ``__main__`` is the only place that turns these into
an exit status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class PipelineError(Exception):
    """Base of all errors that this project reports.

    ``message`` says what failed and what was tried. ``remedy`` is the next thing to do (a command, a package, an
    option). ``log`` is the complete log, if there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, *, exit_code: int) -> None:
        """Each class states an exit code of its own."""
        cls.exit_code = exit_code

    def __init__(self, message: str, *, remedy: str | None = None, log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log

    def __str__(self) -> str:
        """The message, then the remedy and the log on lines of their own."""
        lines = [self.message]
        if self.remedy:
            lines.append(f"To fix it: {self.remedy}")
        if self.log:
            lines.append(f"Complete log: {self.log}")
        return "\n".join(lines)


class SettingsError(PipelineError, exit_code=3):
    """A setting or option is unknown, malformed, or contradicts another."""


class CompilerMissingError(PipelineError, exit_code=10):
    """No usable C++ compiler was found."""


class CompilerUnsupportedError(PipelineError, exit_code=11):
    """nvcc does not support the C++ compiler."""


class ArchitectureError(PipelineError, exit_code=12):
    """A compute capability is malformed, or this toolkit cannot compile for it."""


class DigestMismatchError(PipelineError, exit_code=13):
    """A file is not the locked one. Nothing was unpacked; the file was moved aside."""


class NetworkError(PipelineError, exit_code=14):
    """A locked file is not cached and could not be fetched."""


class DiskFullError(PipelineError, exit_code=15):
    """The disk is full. Finished files are kept."""


class WorkRootError(PipelineError, exit_code=16):
    """The canonical work root is not safe to use (owner, mode, symbolic link)."""


class BuildError(PipelineError, exit_code=17):
    """A file did not compile or link. Finished files are kept."""


class ConfigureError(PipelineError, exit_code=18):
    """CMake could not configure a build unit."""


class LockError(PipelineError, exit_code=19):
    """A lock is malformed, incomplete, or differs from what is installed."""


class ToolkitMissingError(PipelineError, exit_code=20):
    """The requested CUDA toolkit is missing or incomplete."""


class InspectionError(PipelineError, exit_code=21):
    """The finished wheel is not what was declared."""


class ValidationError(PipelineError, exit_code=22):
    """The finished wheel does not run where it must."""


class PackagingError(PipelineError, exit_code=23):
    """The wheel could not be assembled or repaired."""


class CommandError(PipelineError, exit_code=24):
    """A program failed, and no other class describes the failure."""


class StepResultError(PipelineError, exit_code=25):
    """A result of an earlier step is missing, unreadable, or does not match its digests."""


class MeasurementError(PipelineError, exit_code=26):
    """A benchmark could not measure, or a wheel is slower than allowed."""


class ReproductionError(PipelineError, exit_code=27):
    """A second build gave other bytes, or could not be made."""


class VerificationError(PipelineError, exit_code=28):
    """A wheel does not match the provenance next to it, or a required signature is missing."""


class TransferError(PipelineError, exit_code=29):
    """A unit from another machine is damaged, missing or not the one that this build needs."""


class PublishedError(PipelineError, exit_code=30):
    """A file name in an index would get other bytes than those that were published."""


class InterruptedRunError(PipelineError, exit_code=130):
    """The user stopped the run. Finished files are kept."""
