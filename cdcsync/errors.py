"""The verdicts: every error that reaches the pipeline says by its type what happens next."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class End(enum.StrEnum):
    """The end of a pipeline that an error belongs to."""

    SOURCE = "source"
    SINK = "sink"
    STORE = "store"


class ExitStatus(enum.IntEnum):
    """Exit statuses of the command; the systemd unit does not restart these (sysexits.h)."""

    DATA = 65
    OWNERSHIP = 76
    PERMISSION = 77
    CONFIG = 78


class CdcsyncError(Exception):
    """What every error raised on purpose derives from; anything else is a bug."""


class Transient(CdcsyncError):  # noqa: N818  named for its verdict
    """One end is away for now: it alone is closed, backed off from and opened again."""

    def __init__(self, end: End, message: str) -> None:
        super().__init__(message)
        self.end = end
        """The end to close and open again."""

    def __reduce__(self) -> tuple[type[Transient], tuple[End, str]]:
        """Pickle with both arguments."""
        return type(self), (self.end, str(self))


class Finished(CdcsyncError):  # noqa: N818  named for what it says
    """The source has given all that it was asked for; what it gave before is still to be delivered."""


class Rejected(CdcsyncError):  # noqa: N818  named for its verdict
    """Rows that will never be taken as they are; nothing of the batch given was committed."""

    def __init__(
        self, reasons: Mapping[tuple[int, int], str], mapped: Mapping[tuple[int, int], Any] | None = None
    ) -> None:
        super().__init__("; ".join(sorted(set(reasons.values()))))
        self.reasons = dict(reasons)
        """Reason by (index of the transaction, index of the item) in the batch that was given."""
        self.mapped = dict(mapped or {})
        """By the same indexes the target's items that the mapping would have made, as far as it came."""

    def __reduce__(self) -> tuple[type[Rejected], tuple[dict[tuple[int, int], str], dict[tuple[int, int], Any]]]:
        """Pickle with all arguments."""
        return type(self), (self.reasons, self.mapped)


class Incomplete(Rejected):
    """Rows of which the log did not carry all: a sink's or a mapping's word to have them read again at the source."""


class Fatal(CdcsyncError):  # noqa: N818  named for its verdict
    """Only a person can mend it: the daemon stops, the position is not moved."""

    def __init__(self, message: str, *, hint: str, status: ExitStatus = ExitStatus.DATA) -> None:
        super().__init__(message)
        self.hint = hint
        """What to do next; names only commands that exist."""
        self.status = status
        """The exit status of the process."""

    def __str__(self) -> str:
        """Return the message and the hint, for a person."""
        return f"{super().__str__()}\n  -> {self.hint}"
