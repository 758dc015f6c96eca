cdef class Plan

cdef class Lines:
    cdef dict _plans
    cdef object _table
    cdef Plan _last
    cdef object _second
    cdef bytes _second_text
    cpdef bytes encode(self, transaction)
    cpdef put(self, bytearray text, transaction)
    cdef bytes _tail(self, transaction)
    cdef Plan _plan(self, table)

cdef class Plan:
    cdef tuple _names
    cdef dict _converters
    cdef object _line
    cdef object _whole
    cdef object _key
    cdef bint _has_key
    cdef object _key_at
    cdef object _rest
    cdef object _no_rest
    cdef dict _heads
    cpdef dict line(self, bytes end, tail, operation, tuple before, tuple after)
    cdef dict _before(self, tuple before)
    cpdef dict key_object(self, tuple row)
    cpdef bytes row(self, tuple row)
    cdef dict _carried(self, tuple row)
    cpdef list _unchanged(self, tuple row)
