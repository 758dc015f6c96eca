cimport cython


cdef class Framing:
    cdef public str file
    cdef public long long offset
    cdef public long long began
    cdef public Py_ssize_t end
    cdef public long long born
    cdef public bint checksummed
    cdef public bint opened

    @cython.locals(size=cython.Py_ssize_t, end=cython.Py_ssize_t, kind=cython.int, flags=cython.int, following=cython.longlong)
    cpdef int take(self, bytes event) except -1


@cython.locals(value=cython.ulonglong, index=cython.Py_ssize_t)
cdef unsigned long long _int(bytes data, Py_ssize_t at, Py_ssize_t size) except? 0
