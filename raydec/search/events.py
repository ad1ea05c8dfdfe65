"""What a search tells whoever watches it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from raydec.search.ledger import Entry


@runtime_checkable
class SearchEvents(Protocol):
    """Watches the trials of a search."""

    def begun(self, entry: Entry) -> None:
        """A trial starts, or goes on."""
        ...

    def advanced(self, entry: Entry, epoch: int, score: float | None) -> None:
        """A trial finished an epoch; epochs of all its seeds are counted through."""
        ...

    def retried(self, entry: Entry, problem: str) -> None:
        """A trial failed and will be tried again."""
        ...

    def ended(self, entry: Entry, score: float | None) -> None:
        """A trial finished, was stopped or failed for good: ``entry.state`` says which."""
        ...


class NullEvents:
    """Watches nothing."""

    def begun(self, entry: Entry) -> None:
        """See :class:`SearchEvents`."""

    def advanced(self, entry: Entry, epoch: int, score: float | None) -> None:
        """See :class:`SearchEvents`."""

    def retried(self, entry: Entry, problem: str) -> None:
        """See :class:`SearchEvents`."""

    def ended(self, entry: Entry, score: float | None) -> None:
        """See :class:`SearchEvents`."""
