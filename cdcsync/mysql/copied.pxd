cimport cython


cdef class Answers:
    cdef object _table
    cdef Py_ssize_t _size
    cdef list _parsers
    cdef object _dates
    cdef dict _days
    cdef list _zones
    cdef bytes _codes
    cdef bytes _is_text
    cdef list _fields
    cdef int _state
    cdef list _chunks
    cdef Py_ssize_t _have
    cdef Py_ssize_t _wanted
    cdef list _parts
    cdef Py_ssize_t _column

    cpdef bint take(self, bytes data, list rows) except -1

    @cython.locals(
        at=cython.Py_ssize_t, have=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t,
        first=cython.Py_ssize_t, joined=bytes,
    )
    cdef Py_ssize_t _packets(self, bytes data, list rows) except -1

    @cython.locals(
        codes=bytes, row=list, count=cython.Py_ssize_t, index=cython.Py_ssize_t, size=cython.Py_ssize_t,
        start=cython.Py_ssize_t, code=cython.int, width=cython.int,
    )
    cdef object _row(self, bytes data, Py_ssize_t at, Py_ssize_t end)

    @cython.locals(day=str, text=str)
    cdef object _moment(self, bytes data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t index)

    @cython.locals(days=dict)
    cdef object _day(self, bytes text, Py_ssize_t index)

    cdef object _parsed(self, bytes raw, Py_ssize_t index)

    cdef bint _other(self, bytes packet) except -1

    cdef _describe(self)


@cython.locals(size=cython.Py_ssize_t, place=cython.int, part=cython.Py_ssize_t)
cdef Py_ssize_t _length(bytes data, Py_ssize_t at, int width) except -1

@cython.locals(word=cython.longlong, at=cython.Py_ssize_t)
cdef object _integer(bytes data, Py_ssize_t start, Py_ssize_t end)
