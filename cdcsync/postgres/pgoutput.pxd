cimport cython


cdef class Plan:
    cdef public object table
    cdef public bint wanted
    cdef public Py_ssize_t size
    cdef public list decoders
    cdef public list codes
    cdef public list logged
    cdef public list key
    cdef public list blank


cdef class Decoder:
    cdef object _describe
    cdef dict _plans
    cdef dict _relations
    cdef Py_ssize_t _end

    @cython.locals(tag=cython.int)
    cpdef object decode(self, bytes data, Py_ssize_t at)

    cdef object _insert(self, bytes data, Py_ssize_t at)

    @cython.locals(kind=cython.int, end=cython.Py_ssize_t, row=list, after=tuple)
    cdef object _update(self, bytes data, Py_ssize_t at)

    cdef object _delete(self, bytes data, Py_ssize_t at)

    @cython.locals(oid=cython.uint)
    cdef Plan _plan(self, bytes data, Py_ssize_t at)

    @cython.locals(values=tuple, row=list)
    cdef tuple _key(self, Plan plan, bytes data, Py_ssize_t at)

    @cython.locals(
        size=cython.Py_ssize_t, index=cython.Py_ssize_t, kind=cython.int, code=cython.int,
        length=cython.Py_ssize_t, start=cython.Py_ssize_t, codes=list, decoders=list, values=list, text=str,
    )
    cdef tuple _row(self, Plan plan, bytes data, Py_ssize_t at, object old)


@cython.locals(value=cython.longlong, end=cython.Py_ssize_t)
cdef long long _int(bytes data, Py_ssize_t at, Py_ssize_t size) except? -1
