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


class SettingsError(PipelineError):
    """A setting or option is unknown, malformed, or contradicts another."""

    exit_code = 3


class CompilerMissingError(PipelineError):
    """No usable C++ compiler was found."""

    exit_code = 10


class CompilerUnsupportedError(PipelineError):
    """nvcc does not support the C++ compiler."""

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
    """The disk is full. Finished files are kept."""

    exit_code = 15


class WorkRootError(PipelineError):
    """The canonical work root is not safe to use (owner, mode, symbolic link)."""

    exit_code = 16


class BuildError(PipelineError):
    """A file did not compile or link. Finished files are kept."""

    exit_code = 17


class ConfigureError(PipelineError):
    """CMake could not configure a build unit."""

    exit_code = 18


class LockError(PipelineError):
    """A lock is malformed, incomplete, or differs from what is installed."""

    exit_code = 19


class ToolkitMissingError(PipelineError):
    """The requested CUDA toolkit is missing or incomplete."""

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
    """A program failed, and no other class describes the failure."""

    exit_code = 24


class StepResultError(PipelineError):
    """A result of an earlier step is missing, unreadable, or does not match its digests."""

    exit_code = 25


class MeasurementError(PipelineError):
    """A benchmark could not measure, or a wheel is slower than allowed."""

    exit_code = 26


class ReproductionError(PipelineError):
    """A second build gave other bytes, or could not be made."""

    exit_code = 27


class VerificationError(PipelineError):
    """A wheel does not match the provenance next to it, or a required signature is missing."""

    exit_code = 28


class TransferError(PipelineError):
    """A unit from another machine is damaged, missing or not the one that this build needs."""

    exit_code = 29


class InterruptedRunError(PipelineError):
    """The user stopped the run. Finished files are kept."""

    exit_code = 130
