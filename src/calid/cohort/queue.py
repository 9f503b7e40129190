"""Who is next: subjects that wait, and those whose worker died."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from calid.cohort.subject import Outcome, Subject, lost

__all__ = ["Queue"]


class Queue:
    """Subjects in order; one whose worker died goes to the front again, a limited number of times.

    Parameters
    ----------
    subjects
        To be done.
    retries
        How often a subject is begun again.
    """

    def __init__(self, subjects: Iterable[Subject], retries: int) -> None:
        self._waiting, self._retries = deque(subjects), retries
        self._attempts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Subject:
        """The next subject, which counts as begun."""
        subject = self._waiting.popleft()
        self._attempts[subject.name] = self.attempts(subject) + 1
        return subject

    def attempts(self, subject: Subject) -> int:
        """How often it was begun so far."""
        return self._attempts.get(subject.name, 0)

    def died(self, subject: Subject) -> Outcome | None:
        """Put a subject back whose worker died; its outcome if it had its chances."""
        if self.attempts(subject) > self._retries:
            return lost(subject, self.attempts(subject))
        self._waiting.appendleft(subject)
        return None
