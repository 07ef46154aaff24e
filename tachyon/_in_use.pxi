# Included by _tachyon.pyx: who may use a bus now, and how it is closed. _nogil.pxi has the same for nogil code.

cdef extern from *:
    """
    // The in-use flag. Only where threads really run side by side is an exchange needed: it costs 3 ns.
    #ifdef Py_GIL_DISABLED
    static inline int tachyon_enter(int* flag) { return __atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE) == 0; }
    #else
    // Not plain: nogil code enters and leaves without the GIL, and what it did inside is read once it has left.
    static inline int tachyon_enter(int* flag) {
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) != 0) return 0;
        __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
        return 1;
    }
    #endif
    static inline void tachyon_leave(int* flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
    """
    int tachyon_enter(int* flag) noexcept
    void tachyon_leave(int* flag) noexcept


cdef int check_open(Bus self) except -1:
    if self is None:  # of an RpcBus made by __new__
        raise BusClosedError("this RpcBus was never opened; use RpcBus.listen or RpcBus.connect")
    if self._core == NULL or self._closing:
        raise BusClosedError(f"this bus ({self._path}) is closed; open a new one")
    cdef Status status = tachyon_core(self._core).state()
    if status == Status.closed or status == Status.forked:
        raise_status(self, status, 0)
    return 0


cdef inline int enter(Bus self) except -1:
    if self._core == NULL or self._held != 0 or not tachyon_enter(&self._in_use):
        return refuse_use(self)
    return 0


cdef int refuse_use(Bus self) except -1:
    check_open(self)
    if self._held != 0:
        raise BusBusyError("nogil code holds a claim or a frame of this bus; commit, abort or release it")
    if is_lent(self):
        raise BusBusyError("the ring of this bus is lent to code that inlines it; give it back first")
    raise BusBusyError(
        "this bus is in use by another thread, or by a caller of this one; a Bus serves one thread at a time"
    )


cdef inline void leave(Bus self) noexcept:
    tachyon_leave(&self._in_use)
    if self._closing:
        finish_close(self)


cdef void finish_close(Bus self) noexcept:
    """Close the core; unmap once no guard is open. With the GIL."""
    cdef core.Bus* opened = tachyon_core(self._core)
    if opened == NULL:
        return
    close_core(self)
    if self._guards == 0 and tachyon_look(&self._closed) == 2:  # 1: a nogil method is closing it at this moment
        self._core = NULL
        del opened


cdef void guard_ended(Bus self) noexcept:
    self._guards -= 1
    # Received guards may end while another thread is inside; then that one finishes.
    if self._closing and tachyon_enter(&self._in_use):
        leave(self)


cdef int end(Bus self, core.End how) except -1:
    """close() and abort(): the first of them says which it is."""
    if self._core == NULL:
        return 0
    if not self._closing:
        tachyon_set(<int*>&self._closing, <int>how)
    tachyon_heavy_barrier()
    if tachyon_enter(&self._in_use):
        leave(self)
    else:
        tachyon_core(self._core).request_close()  # whoever is in there finishes the job
    return 0


# How a `with` block was left. SystemExit without an error and GeneratorExit are ways to leave it in good order.
cdef core.End end_of_block(object raised) noexcept:
    if raised is None or isinstance(raised, GeneratorExit):
        return core.End.closed
    if isinstance(raised, SystemExit):
        code = (<object>raised).code
        if code is None or (isinstance(code, int) and code == 0):
            return core.End.closed
    return core.End.aborted
