cimport cython


cdef class Stream:
    cdef object _connection
    cdef object _reader
    cdef object _clock
    cdef object _socket
    cdef object _receive
    cdef bint _is_tls
    cdef bytes _data
    cdef Py_ssize_t _at
    cdef list _chunks
    cdef list _parts
    cdef double _heard_at
    cdef Py_ssize_t _drained

    @cython.locals(data=bytes, at=cython.Py_ssize_t, have=cython.Py_ssize_t, size=cython.Py_ssize_t, end=cython.Py_ssize_t)
    cpdef read(self)
