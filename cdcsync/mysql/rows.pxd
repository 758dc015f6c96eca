cimport cython


cdef class RowsDecoder:
    cdef public list starts
    cdef object _table
    cdef object _layout
    cdef Py_ssize_t _size
    cdef object _dates
    cdef bytes _codes
    cdef bytes _widths
    cdef list _readers
    cdef list _scales
    cdef list _groups
    cdef list _blank
    cdef dict _shown
    cdef list _first
    cdef list _second
    cdef Py_ssize_t _end
    cdef dict _packed
    cdef dict _joined
    cdef dict _days
    cdef dict _clocks
    cdef long long _second_last
    cdef str _second_text
    cdef dict _documents
    cdef int _partial
    cdef set _differing
    cdef list _visible
    cdef bint _hides

    @cython.locals(starts=list, changes=list, first=list, before=tuple, after=tuple)
    cpdef list decode(self, bytes event, Py_ssize_t at, Py_ssize_t end, int kind)

    @cython.locals(starts=list, first=list, second=list)
    cpdef Py_ssize_t count(self, bytes event, Py_ssize_t at, Py_ssize_t end, int kind) except -1

    cdef tuple _without(self, tuple row)

    @cython.locals(at=cython.Py_ssize_t, second=list, after=tuple, row=list, index=cython.Py_ssize_t)
    cdef tuple _after(self, bytes event, Py_ssize_t end, tuple before, int kind)

    @cython.locals(flags=cython.int, width=cython.Py_ssize_t)
    cdef Py_ssize_t _head(self, bytes event, Py_ssize_t at, Py_ssize_t end, int kind) except -1

    cdef list _columns(self, bytes bitmap)

    @cython.locals(
        codes=bytes, widths=bytes, values=list, nulls=cython.Py_ssize_t, place=cython.int, index=cython.Py_ssize_t,
        code=cython.int, width=cython.int, size=cython.Py_ssize_t, start=cython.Py_ssize_t, word=cython.longlong,
        high=cython.longlong,
    )
    cdef tuple _row(self, bytes data, Py_ssize_t at, Py_ssize_t end, list columns)

    @cython.locals(size=cython.Py_ssize_t, high=cython.Py_ssize_t)
    cdef Py_ssize_t _upper(self, bytes data, Py_ssize_t at, int width) except -1

    @cython.locals(word=cython.longlong)
    cdef object _fixed(self, int code, bytes data, Py_ssize_t at, Py_ssize_t index)

    @cython.locals(word=cython.longlong, joined=cython.longlong)
    cdef object _datetime(self, bytes data, Py_ssize_t at, int rest)

    @cython.locals(word=cython.longlong, day=cython.longlong, second=cython.longlong, text=str)
    cdef object _timestamp(self, bytes data, Py_ssize_t at, int rest)

    cdef object _clock(self, Py_ssize_t packed)

    cdef object _kept(self, dict texts, Py_ssize_t packed, object text)

    @cython.locals(word=cython.longlong, place=cython.Py_ssize_t, text=str)
    cdef object _fraction(self, bytes data, Py_ssize_t at, int rest)

    @cython.locals(
        mask=cython.int, total=cython.longlong, word=cython.longlong, size=cython.int, factor=cython.longlong,
        text=str, scale=cython.Py_ssize_t, groups=tuple,
    )
    cdef object _decimal(self, bytes data, Py_ssize_t at, Py_ssize_t index)

    cdef object _document(self, Py_ssize_t index, bytes raw)

    cdef Py_ssize_t _partials(self, bytes data, Py_ssize_t at) except -1

    @cython.locals(nulls=cython.Py_ssize_t, place=cython.int, index=cython.Py_ssize_t, code=cython.int,
                   width=cython.int, size=cython.Py_ssize_t)
    cdef Py_ssize_t _skip(self, bytes data, Py_ssize_t at, Py_ssize_t end, list columns) except -1
