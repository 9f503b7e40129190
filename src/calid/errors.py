"""Every error that a user can meet: one hierarchy, each with its own exit code.

A message has three parts, always in this order: what was looked at, the rule that it
breaks, and the remedy. The command line prints them and exits with ``exit_code``; nothing
else in the package decides an exit code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class CalidError(Exception):
    """Base of all errors that `calid` raises on purpose.

    Parameters
    ----------
    subject
        What the error is about: a path, an option, a slice.
    rule
        The rule that it breaks, as a full sentence.
    remedy
        What the user can do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, subject: object, rule: str, remedy: str) -> None:
        self.subject, self.rule, self.remedy = str(subject), rule, remedy
        super().__init__(f"{self.subject}: {rule} {remedy}")

    def __reduce__(self) -> tuple[type[CalidError], tuple[str, str, str]]:
        # Exceptions are pickled by their message alone; these travel between processes whole.
        return type(self), (self.subject, self.rule, self.remedy)

    @classmethod
    @contextmanager
    def of_system(cls, subject: object, rule: str, remedy: str) -> Iterator[None]:
        """Raise this error in place of an `OSError` of the block.

        Parameters
        ----------
        rule
            Begins the sentence; what the system says ends it.
        """
        try:
            yield
        except OSError as error:
            raise cls(subject, f"{rule}: {error.strerror or error}.", remedy) from error


class UsageError(CalidError):
    """Options that contradict each other or name something that does not exist."""

    exit_code = 2


class InputError(CalidError):
    """The input file is missing, unreadable or not what its name says."""

    exit_code = 3


class GeometryError(CalidError):
    """The input's geometry is broken or cannot be used: shape, spacing, affine."""

    exit_code = 4


class IntensityError(CalidError):
    """The input's voxel values cannot be used: not a number, infinite, not real."""

    exit_code = 5


class OutputError(CalidError):
    """The output cannot be written where it was asked for."""

    exit_code = 6


class WeightsError(CalidError):
    """Model weights are missing, damaged or of another configuration."""

    exit_code = 7


class DataError(CalidError):
    """A folder of stacks cannot be used for training or evaluation."""

    exit_code = 8


class CohortError(CalidError):
    """Some subjects of a cohort could not be reconstructed; the others are complete."""

    exit_code = 9


class ResourceError(CalidError):
    """The machine has too little memory for what was asked."""

    exit_code = 10


class CalidWarning(UserWarning):
    """Something was decided on the user's behalf and should be read."""
