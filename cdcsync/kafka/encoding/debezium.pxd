cimport cython
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

    @cython.locals(tail=bytes, at=cython.Py_ssize_t, end=cython.Py_ssize_t)
    cpdef encode_run(self, changes, Py_ssize_t start, transaction, now_us, list into)

    cdef bytes _tail_of(self, operation, transaction, now_us)
    cdef tuple _new(self, tuple after, bytes tail)
    cdef tuple _same_key(self, tuple before, tuple after, bytes tail)
