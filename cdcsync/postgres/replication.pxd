cdef class Stream:
    cdef object _connection
    cdef object _pgconn
    cdef object _get
    cdef Py_ssize_t _consume_max
    cdef object _clock
    cdef double _status_s
    cdef double _silence_max_s
    cdef object _flushed
    cdef double _said_at
    cdef double _heard_at
    cdef object _asked_at
    cdef object _skipping
    cdef Py_ssize_t _drained

    cpdef read(self)
