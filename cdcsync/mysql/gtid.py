"""Which transactions were seen: GTID sets of MySQL, GTID lists of MariaDB; values that never change."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Interval: TypeAlias = tuple[int, int]
"""First and last, both in it."""

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")
_INTERVAL: Final = re.compile(r"(\d+)(?:-(\d+))?")
_TRIPLE: Final = re.compile(r"(\d+)-(\d+)-(\d+)")
GNO_MAX: Final = (1 << 63) - 2


class GtidSet:
    """MySQL's: intervals of numbers by the UUID of the server that committed first.

    A stream adds one number after another; that one growing interval is held apart from the others, so that adding
    costs one small object whatever the size of the set.
    """

    __slots__ = ("_first", "_last", "_others", "_uuid")

    def __init__(
        self, others: Mapping[str, tuple[Interval, ...]] | None = None, uuid: str = "", first: int = 1, last: int = 0
    ) -> None:
        self._others: Mapping[str, tuple[Interval, ...]] = {} if others is None else others
        self._uuid = uuid
        self._first = first
        self._last = last

    @classmethod
    def parse(cls, text: str) -> GtidSet:
        """Return the set that MySQL writes as `uuid:1-5:7,uuid:3`. Raises ValueError."""
        found: dict[str, list[Interval]] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            uuid, *intervals = (word.strip() for word in part.split(":"))
            if not _UUID.fullmatch(uuid) or not intervals:
                msg = f"not a GTID set: {part!r}; write uuid:1-5:7,uuid:3"
                raise ValueError(msg)
            found.setdefault(_uuid(uuid), []).extend(_interval(word, part) for word in intervals)
        return cls({uuid: merged(intervals) for uuid, intervals in found.items()})

    def with_one(self, uuid: str, number: int) -> GtidSet:
        """Return the set with one more transaction; `uuid` in lower case with hyphens."""
        if number == self._last + 1 and uuid == self._uuid:
            return GtidSet(self._others, uuid, self._first, number)
        others = self.intervals()
        if others.get(uuid) and others[uuid][-1][1] + 1 == number:
            *before, (first, _) = others[uuid]
            return GtidSet({**others, uuid: tuple(before)}, uuid, first, number)
        return GtidSet(others, uuid, number, number)

    def intervals(self) -> Mapping[str, tuple[Interval, ...]]:
        """Return them all by UUID, in order, none touching the next."""
        if self._last < self._first:
            return self._others
        mine = merged([*self._others.get(self._uuid, ()), (self._first, self._last)])
        return {**self._others, self._uuid: mine}

    def union(self, other: GtidSet) -> GtidSet:
        """Return what is in either."""
        ours, theirs = self.intervals(), other.intervals()
        return GtidSet({uuid: merged([*ours.get(uuid, ()), *theirs.get(uuid, ())]) for uuid in {**ours, **theirs}})

    def subtract(self, other: GtidSet) -> GtidSet:
        """Return what is in this one alone."""
        theirs = other.intervals()
        left = {uuid: _without(each, theirs.get(uuid, ())) for uuid, each in self.intervals().items()}
        return GtidSet({uuid: each for uuid, each in left.items() if each})

    def covers(self, other: GtidSet) -> bool:
        """Return whether all that is in `other` is in this one."""
        return not other.subtract(self)

    def __contains__(self, gtid: tuple[str, int]) -> bool:
        uuid, number = gtid
        return any(first <= number <= last for first, last in self.intervals().get(uuid, ()))

    def __bool__(self) -> bool:
        return self._last >= self._first or any(self._others.values())

    def __str__(self) -> str:
        """Return it as MySQL writes it, without spaces."""
        if not self._others and self._first < self._last:
            return f"{self._uuid}:{self._first}-{self._last}"
        return ",".join(
            f"{uuid}:{':'.join(f'{first}' if first == last else f'{first}-{last}' for first, last in each)}"
            for uuid, each in sorted(self.intervals().items())
            if each
        )

    def __repr__(self) -> str:
        return f"GtidSet({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class GtidList:
    """MariaDB's: the last transaction of each domain, `domain-server-number`; numbers rise within a domain."""

    __slots__ = ("_domain", "_last", "_others")

    def __init__(self, others: Mapping[int, Interval] | None = None, domain: int = -1, last: Interval = (0, 0)) -> None:
        self._others: Mapping[int, Interval] = {} if others is None else others
        """Server and number by domain."""
        self._domain = domain
        """The one that the stream is in: held apart, as in `GtidSet`."""
        self._last = last

    @classmethod
    def parse(cls, text: str) -> GtidList:
        """Return the list that MariaDB writes as `0-1-100,2-3-7`, one for a domain. Raises ValueError."""
        found: dict[int, Interval] = {}
        for domain, server, number in triples(text):
            if domain in found:
                msg = f"domain {domain} is named twice: {text!r}"
                raise ValueError(msg)
            found[domain] = server, number
        return cls(found)

    @classmethod
    def last_of(cls, state: str) -> GtidList:
        """Return the highest number of each domain in a `gtid_binlog_state`, which has one for each server."""
        found: dict[int, Interval] = {}
        for domain, server, number in triples(state):
            if number >= found.get(domain, (0, -1))[1]:
                found[domain] = server, number
        return cls(found)

    def with_one(self, domain: int, server: int, number: int) -> GtidList:
        """Return the list after one more transaction."""
        others = self._others if domain == self._domain else self.domains()
        return GtidList(others, domain, (server, number))

    def domains(self) -> Mapping[int, Interval]:
        """Return server and number of each domain."""
        return self._others if self._domain < 0 else {**self._others, self._domain: self._last}

    def union(self, other: GtidList) -> GtidList:
        """Return for each domain the higher one."""
        ours, theirs = self.domains(), other.domains()
        return GtidList(
            {
                domain: max(ours.get(domain, (0, -1)), theirs.get(domain, (0, -1)), key=_number)
                for domain in {**ours, **theirs}
            }
        )

    def subtract(self, other: GtidList) -> GtidList:
        """Return the domains in which this one is further."""
        theirs = other.domains()
        return GtidList({domain: at for domain, at in self.domains().items() if at[1] > theirs.get(domain, (0, -1))[1]})

    def covers(self, other: GtidList) -> bool:
        """Return whether this one is as far in every domain of `other`."""
        return not other.subtract(self)

    def __contains__(self, gtid: tuple[int, int]) -> bool:
        domain, number = gtid
        return self.domains().get(domain, (0, -1))[1] >= number

    def __bool__(self) -> bool:
        return self._domain >= 0 or bool(self._others)

    def __str__(self) -> str:
        """Return it as MariaDB writes it."""
        return ",".join(f"{domain}-{server}-{number}" for domain, (server, number) in sorted(self.domains().items()))

    def __repr__(self) -> str:
        return f"GtidList({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidList) and self.domains() == other.domains()

    def __hash__(self) -> int:
        return hash(str(self))


Gtids: TypeAlias = GtidSet | GtidList


def parse(text: str) -> Gtids:
    """Return what either flavour writes; the empty text is the empty set. Raises ValueError."""
    return GtidList.parse(text) if _TRIPLE.match(text.strip()) and ":" not in text else GtidSet.parse(text)


def single(gtids: Gtids) -> tuple[str, int] | None:
    """Return UUID and number of a set of MySQL's that has but one transaction."""
    if not isinstance(gtids, GtidSet):
        return None
    found = [(uuid, *interval) for uuid, intervals in gtids.intervals().items() for interval in intervals]
    return found[0][:2] if len(found) == 1 and found[0][1] == found[0][2] else None


def triples(text: str) -> list[tuple[int, int, int]]:
    """Return domain, server and number of each. Raises ValueError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        matched = _TRIPLE.fullmatch(part)
        if matched is None:
            msg = f"not a GTID of MariaDB: {part!r}; write domain-server-number, as 0-1-100"
            raise ValueError(msg)
        found.append((int(matched[1]), int(matched[2]), int(matched[3])))
    return found


def merged(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Return the same numbers as intervals in order, none touching the next."""
    found: list[Interval] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            if last > found[-1][1]:
                found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return tuple(found)


def _without(intervals: tuple[Interval, ...], taken: tuple[Interval, ...]) -> tuple[Interval, ...]:
    left: list[Interval] = []
    for first, last in intervals:
        start = first
        for low, high in taken:
            if high < start or low > last:
                continue
            if low > start:
                left.append((start, low - 1))
            start = high + 1
        if start <= last:
            left.append((start, last))
    return tuple(left)


def _interval(word: str, part: str) -> Interval:
    matched = _INTERVAL.fullmatch(word)
    if matched is None:
        what = "tagged GTIDs are not read yet" if re.fullmatch(r"[A-Za-z_]\w{0,31}", word) else "not a GTID set"
        msg = f"{what}: {part!r}; write uuid:1-5:7,uuid:3"
        raise ValueError(msg)
    first, last = int(matched[1]), int(matched[2] or matched[1])
    if not 0 < first <= last <= GNO_MAX:
        msg = f"numbers begin at 1 and rise: {part!r}"
        raise ValueError(msg)
    return first, last


def _uuid(text: str) -> str:
    """Return it in lower case with hyphens; MySQL takes it without."""
    digits = text.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _number(at: Interval) -> int:
    return at[1]
