cimport cython


cdef class Assembler:
    cdef public bint full
    cdef Py_ssize_t _changes_max
    cdef Py_ssize_t _raw_at
    cdef Py_ssize_t _size_bytes_max
    cdef object _ready
    cdef list _done
    cdef Py_ssize_t _done_changes
    cdef Py_ssize_t _done_bytes
    cdef object _reached
    cdef object _resume
    cdef bint _open
    cdef list _items
    cdef list _ordinals
    cdef Py_ssize_t _bytes
    cdef Py_ssize_t _raw
    cdef Py_ssize_t _skip
    cdef object _expected
    cdef Py_ssize_t _part
    cdef bytes _last_raw
    cdef Py_ssize_t _last_from
    cdef Py_ssize_t _last_to
    cdef Py_ssize_t _last_count
    cdef str _id
    cdef object _version
    cdef object _commit_time_us
    cdef object _place

    cpdef add(self, item, bytes raw)
    cdef bint _counted(self, bytes raw) except -1

    @cython.locals(count=cython.Py_ssize_t, at=cython.Py_ssize_t, taken=cython.Py_ssize_t, until=cython.Py_ssize_t)
    cpdef add_rows(self, items, bytes raw, list starts, Py_ssize_t end)

    cdef _measure(self)
    cdef _clear(self)
    cdef _transaction(self, position, bint last)
