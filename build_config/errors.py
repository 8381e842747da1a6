"""What can go wrong, one class and one exit code each.

A message says what failed, what was tried, and what to do next. ``__main__`` is the only place that turns these into
an exit status.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class PipelineError(Exception):
    """Base of everything the pipeline reports by itself.

    ``message`` says what failed and what was tried; ``remedy`` is the next thing to do (a command, a package, an
    option); ``log`` is the whole log, where there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str | None = None, log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.log = log

    def __str__(self) -> str:
        """The message, then the remedy and the log on lines of their own."""
        lines = [self.message]
        if self.remedy:
            lines.append(f"To mend it: {self.remedy}")
        if self.log:
            lines.append(f"Whole log: {self.log}")
        return "\n".join(lines)


class SettingsError(PipelineError):
    """A setting or option is unknown, malformed, or contradicts another."""

    exit_code = 3


class CompilerMissingError(PipelineError):
    """No usable C++ compiler was found."""

    exit_code = 10


class CompilerUnsupportedError(PipelineError):
    """The C++ compiler is one that this nvcc refuses."""

    exit_code = 11


class ArchitectureError(PipelineError):
    """A compute capability is malformed, or this toolkit cannot compile for it."""

    exit_code = 12


class DigestMismatchError(PipelineError):
    """A file is not the locked one. Nothing was unpacked; the file was moved aside."""

    exit_code = 13


class NetworkError(PipelineError):
    """A locked file is not cached and could not be fetched."""

    exit_code = 14


class DiskFullError(PipelineError):
    """The disk filled up. What was finished is kept."""

    exit_code = 15


class WorkRootError(PipelineError):
    """The canonical work root is not safe to use (owner, mode, symbolic link)."""

    exit_code = 16


class BuildError(PipelineError):
    """A file did not compile or link. What was finished is kept."""

    exit_code = 17


class ConfigureError(PipelineError):
    """CMake could not configure a build unit."""

    exit_code = 18


class LockError(PipelineError):
    """A lock is malformed, incomplete, or differs from what is installed."""

    exit_code = 19


class ToolkitMissingError(PipelineError):
    """The CUDA toolkit that was asked for is not there or not complete."""

    exit_code = 20


class InspectionError(PipelineError):
    """The finished wheel is not what was declared."""

    exit_code = 21


class ValidationError(PipelineError):
    """The finished wheel does not run where it must."""

    exit_code = 22


class PackagingError(PipelineError):
    """The wheel could not be assembled or repaired."""

    exit_code = 23


class CommandError(PipelineError):
    """A program failed in a way that no step has a better name for."""

    exit_code = 24


class StepResultError(PipelineError):
    """A result of an earlier step is missing, unreadable, or does not match its digests."""

    exit_code = 25


class MeasurementError(PipelineError):
    """A benchmark could not measure, or a wheel is slower than it may be."""

    exit_code = 26


class ReproductionError(PipelineError):
    """A second build gave other bytes, or could not be made."""

    exit_code = 27


class VerificationError(PipelineError):
    """A wheel does not have the provenance that lies beside it, or nobody signed it who should have."""

    exit_code = 28


class HandoverError(PipelineError):
    """A unit that another machine built is damaged, is not there, or is not the one that this build needs."""

    exit_code = 29


class InterruptedRunError(PipelineError):
    """The user stopped the run. What was finished is kept."""

    exit_code = 130
