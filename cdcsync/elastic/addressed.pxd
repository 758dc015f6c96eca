cimport cython


cdef class Action:
    cdef public object cause
    cdef public object version
    cdef public object to
    cdef public bytes text


cdef class Addressed:
    cdef public object index
    cdef public object written
    cdef public tuple kept
    cdef public object folded
    cdef Py_ssize_t _routing
    cdef bint _single
    cdef bytes _pipeline
    cdef tuple _heads
    cdef public object plan
    cdef public bint reads_back
    cpdef tuple place(self, object key)
    cpdef Action deleted(self, object cause, tuple place, object version)
    @cython.locals(reasons=dict, gone=dict)
    cpdef dict put(self, object effects, list versions, dict merged, object put)
