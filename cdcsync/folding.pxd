cimport cython


cdef class Effect:
    cdef public object key
    cdef public object origin
    cdef public object row
    cdef public object first
    cdef public object more
    cdef public bint owns
    cdef public bint fresh
    cdef public object moved
    cpdef list refs(self)
    cpdef add(self, object ref)


cdef class Step:
    cdef public object old
    cdef public object new
    cdef public object effect
    cdef public object previous


cdef class Fold:
    cdef public object table
    cdef public bint keyed
    cdef public bint floats
    cdef public Py_ssize_t single
    cdef public object key_of
    cdef public dict by_key
    cdef public list effects
    cdef public list steps
    cdef public set owned
    cdef public list passed
    cdef public dict displaced
    cpdef str add(self, object change, tuple ref)
    cpdef object _key(self, object row)
    cpdef str _append(self, object operation, object after, tuple ref)
    cpdef str _insert(self, object after, tuple ref)
    cpdef object _found(self, object key, object before)
    cpdef _delete(self, object key, object before, tuple ref)
    cpdef _leave(self, object effect, object key)
    cpdef str _update(self, object old, object before, object after, tuple ref)
    cpdef _move(self, object effect, object old, object new, tuple ref)


cpdef bint complete(object row)


@cython.locals(at=cython.Py_ssize_t, index=cython.Py_ssize_t, current=Fold, folds=dict, reason=str)
cpdef list fold(object batch)
