cdef class Plan

cdef class Lines:
    cdef dict _plans
    cpdef bytes encode(self, transaction)
    cdef Plan _plan(self, table)

cdef class Plan:
    cdef tuple _names
    cdef list _converters
    cdef tuple _key_at
    cdef bytes _key_head
    cdef dict _heads
    cpdef put(self, list pieces, operation, before, after)
    cdef bytes _before(self, tuple before, tuple after, bytes key)
    cpdef bytes key(self, tuple row)
    cpdef bytes row(self, tuple row)
    cpdef list _unchanged(self, tuple row)

cpdef bint lacks(tuple row)
