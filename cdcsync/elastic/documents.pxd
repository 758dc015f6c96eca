cdef class Plan:
    cdef list _names
    cdef list _kinds
    cdef dict _converters
    cdef object _whole
    cdef list _parts
    cdef object _template
    cdef Py_ssize_t _width
    cdef bint _number
    cpdef str id(self, object key)
    cpdef bytes document(self, object row)


cpdef bytes _line(object values)
