cdef class Rows:
    cdef public object table
    cdef public list forms
    cdef public list shown
    cdef public object key_at
    cdef public list key_names
    cdef public object whole
    cdef public object keyed
    cdef list _every
    cdef bint _text
    cdef object _rest
    cdef object _no_rest
