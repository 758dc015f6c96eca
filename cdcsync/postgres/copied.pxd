cimport cython


cdef class Lines:
    cdef public Py_ssize_t size
    cdef public list decoders
    cdef public list codes
    cdef public list others

    @cython.locals(size=cython.Py_ssize_t, count=cython.Py_ssize_t)
    cpdef take(self, get, list rows, Py_ssize_t size_max)

    @cython.locals(
        text=str, fields=list, codes=list, escaped=cython.bint, index=cython.Py_ssize_t, code=cython.int,
        size=cython.Py_ssize_t,
    )
    cpdef object row(self, bytes line)

    cdef _unescape(self, list fields)
