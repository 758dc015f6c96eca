"""The hash by which the Java clients choose a key's partition (`org.apache.kafka.common.utils.Utils.murmur2`)."""

from __future__ import annotations

_M = 0x5BD1E995
_WORD = 0xFFFFFFFF
_SEED = 0x9747B28C


def murmur2(data: bytes) -> int:
    """Return the hash, without a sign."""
    length = len(data)
    made = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _WORD
        word = (word ^ word >> 24) * _M & _WORD
        made = (made * _M & _WORD) ^ word
    rest = data[whole:]
    if rest:
        made = (made ^ int.from_bytes(rest, "little")) * _M & _WORD
    made = (made ^ made >> 13) * _M & _WORD
    return made ^ made >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that the Java clients' default partitioner gives a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
