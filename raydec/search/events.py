"""Events of a search, for displaying its progress."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from raydec.search.ledger import Entry


@runtime_checkable
class SearchEvents(Protocol):
    """Receives the progress of the trials of a search."""

    def begun(self, entry: Entry) -> None:
        """A trial starts or resumes."""
        ...

    def advanced(self, entry: Entry, epoch: int, score: float | None) -> None:
        """A trial finished an epoch; epochs are counted over all its seeds."""
        ...

    def retried(self, entry: Entry, problem: str) -> None:
        """A trial failed and will be retried."""
        ...

    def ended(self, entry: Entry, score: float | None) -> None:
        """A trial finished, was stopped, or failed without a further retry, as in ``entry.state``."""
        ...


class NullEvents:
    """Ignores all events."""

    def begun(self, entry: Entry) -> None:
        """See :class:`SearchEvents`."""

    def advanced(self, entry: Entry, epoch: int, score: float | None) -> None:
        """See :class:`SearchEvents`."""

    def retried(self, entry: Entry, problem: str) -> None:
        """See :class:`SearchEvents`."""

    def ended(self, entry: Entry, score: float | None) -> None:
        """See :class:`SearchEvents`."""
