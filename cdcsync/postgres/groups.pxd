cimport cython


cdef class Groups:
    cdef public object here
    cdef public object beside
    cdef public object wal_end
    cdef public object told
    cdef public bint messages
    cdef object _assembler
    cdef object _decode
    cdef object _is_due
    cdef list _schema_changes
    cdef object _xid
    cdef object _final_lsn
    cdef object _first_version
    cdef object _lsn_end
    cdef object _place_of

    @cython.locals(data=bytes)
    cpdef drain(self, stream)

    cdef _begin(self, begin)

    cdef _other(self, item, bytes data)
