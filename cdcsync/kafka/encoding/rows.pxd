cimport cython


cdef class Rows:
    cdef public object table
    cdef public list forms
    cdef public list shown
    cdef public list key_at
    cdef public list key_names
    cdef list _every
    cdef list _names
    cdef list _converters
    cdef bint _text
    cdef object _rest
    cdef object _no_rest
    cpdef dict whole(self, tuple row)
    cpdef dict keyed(self, tuple row)

    @cython.locals(at=cython.Py_ssize_t, column=cython.Py_ssize_t, made=dict, converters=list)
    cdef dict _made(self, tuple row, list columns, list names)
