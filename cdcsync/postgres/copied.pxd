cimport cython


cdef class Lines:
    cdef public object table
    cdef public Py_ssize_t size
    cdef public list decoders
    cdef public list codes

    @cython.locals(
        fields=list, codes=list, values=list, field=bytes, escaped=cython.bint, index=cython.Py_ssize_t, code=cython.int,
        text=str,
    )
    cpdef object change(self, bytes line)
