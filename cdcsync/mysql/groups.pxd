cimport cython

from cdcsync.mysql.binlog cimport Framing


cdef class Plan:
    cdef public bytes body
    cdef public object table
    cdef public object decoder
    cdef public bint wanted
    cdef public list changes


cdef class Rows:
    cdef object _assembler
    cdef object _tables
    cdef Framing _framing
    cdef dict _plans
    cdef object _dummy
    cdef public object waiting

    cpdef bint again(self) except -1

    cpdef begin(self)

    @cython.locals(known=Plan, number=cython.longlong, body=bytes)
    cpdef map(self, bytes event, Py_ssize_t end, str gtid)

    @cython.locals(plan=Plan, number=cython.longlong)
    cpdef add(self, int kind, bytes event, Py_ssize_t end, str gtid)


cdef class Groups:
    cdef public object here
    cdef public object decided
    cdef object _assembler
    cdef object _tables
    cdef Framing _framing
    cdef Rows _rows
    cdef int _state
    cdef str _gtid
    cdef long long _began
    cdef object _member
    cdef dict _marks
    cdef object _inner
    cdef dict _uuids
    cdef object _file_version
    cdef object _offset_end
    cdef object _place_of

    @cython.locals(kind=cython.int)
    cpdef take(self, bytes event)

    cdef _one(self, int kind, bytes event, Py_ssize_t end)

    cdef _among(self, int kind)

    @cython.locals(raw=bytes, number=cython.longlong, at_us=cython.longlong)
    cdef _begin_mysql(self, int kind, bytes event, Py_ssize_t end)

    @cython.locals(flags=cython.int, state=cython.int, number=cython.longlong, domain=cython.longlong, server=cython.longlong)
    cdef _begin_mariadb(self, bytes event)

    @cython.locals(began=cython.longlong)
    cdef _begin(self, str gtid, at_us, int state)

    cdef _commit(self)


@cython.locals(value=cython.longlong, index=cython.Py_ssize_t)
cdef long long _int(bytes event, Py_ssize_t at, Py_ssize_t size) except? -1
