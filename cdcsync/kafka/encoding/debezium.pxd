from cdcsync.kafka.encoding.rows cimport Rows


cdef class DebeziumTable:
    cdef Rows _rows
    cdef object _sender
    cdef bint _tombstones
    cdef object _table
    cdef bytes _before_value
    cdef bytes _before_key
    cdef bytes _end_value
    cdef bytes _end_key
    cdef bint _plain_key
    cdef bytes _open
    cdef bytes _insert
    cdef object _at
    cdef dict _tails
    cdef public object counter
    cdef list _new(self, tuple after, bytes tail)
