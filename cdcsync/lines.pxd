cdef class Plan

cdef class Lines:
    cdef dict _plans
    cdef object _second
    cdef bytes _second_text
    cpdef bytes encode(self, transaction)
    cdef bytes _tail(self, transaction)
    cdef Plan _plan(self, table)

cdef class Plan:
    cdef tuple _names
    cdef dict _converters
    cdef tuple _key_at
    cdef bytes _key_head
    cdef object _rest
    cdef object _no_rest
    cdef dict _heads
    cpdef put(self, list pieces, bytes end, operation, before, after)
    cdef bytes _before(self, tuple before, tuple after, bytes key)
    cpdef bytes key(self, tuple row)
    cpdef bytes row(self, tuple row)
    cdef object _object
    cpdef list _unchanged(self, tuple row)

