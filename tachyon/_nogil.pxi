# Included by _tachyon.pyx: what lets nogil code use a Bus while another thread may close it.
#
# A nogil method announces itself in _in_use with a plain store, and then looks whether the bus is being closed; close()
# says so first and looks at _in_use afterwards. Each side stores one word and loads the other's, as in wait.hpp, and as
# there the rare side pays for the barrier that both need: close() with a membarrier, a method with nothing. It is the one
# for the threads of this process: the one of wait.hpp may pass over a core, which there costs time, and here memory. So
#   - close() finds a method inside: it wakes it and goes; the method closes the core on its way out;
#   - close() finds nobody: it closes the core and unmaps it, unless nogil code holds a claim or a frame; any method
#     that comes later sees that, and does not touch the core.
# Both may find that closing is theirs, hence the exchange in tachyon_begin_close. Only a holder of the GIL unmaps.

cdef extern from *:
    """
    #include <pthread.h>

    enum { kInUseByPython = 1, kInUseByNogil = 2, kLentProducer = 3, kLentConsumer = 4 };

    static const bool tachyon_has_membarrier = tachyon::register_own_membarrier();

    static inline void tachyon_light_barrier() {
        tachyon::compiler_barrier();
        if (!tachyon_has_membarrier) [[unlikely]] tachyon::full_barrier();
    }
    // Should the kernel refuse it after all, a store has long left its core after a millisecond.
    static void tachyon_heavy_barrier() {
        tachyon::full_barrier();
        if (tachyon_has_membarrier && !tachyon::own_membarrier()) ::usleep(1000);
    }

    static inline int tachyon_look(const int* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void tachyon_set(int* word, int value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

    // 1: inside. 0: refused. -1: refused, but close() may have found us here and left the closing to us.
    // guards == held: no Python guard is open, only nogil code may hold something.
    static inline int tachyon_enter_nogil(int* in_use, const int* closing, int guards, int held) {
        if (tachyon_look(in_use) != 0 || guards != held) [[unlikely]] return 0;
        tachyon_set(in_use, kInUseByNogil);
        tachyon_light_barrier();
        if (tachyon_look(closing) == 0) [[likely]] return 1;
        tachyon_set(in_use, 0);
        return -1;
    }
    // True: it was asked to close meanwhile.
    static inline bool tachyon_leave_nogil(int* in_use, const int* closing) {
        tachyon_set(in_use, 0);
        tachyon_light_barrier();
        return tachyon_look(closing) != 0;
    }

    // 0 open, 1 somebody is closing it, 2 closed.
    static inline bool tachyon_begin_close(int* closed) {
        int open = 0;
        return __atomic_compare_exchange_n(closed, &open, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    static inline void tachyon_end_close(int* closed) { tachyon_set(closed, 2); }

    static inline uint64_t tachyon_deadline(long long timeout_ns) {
        return timeout_ns < 0 ? tachyon::kNever : tachyon::now_ns() + static_cast<uint64_t>(timeout_ns);
    }

    static inline uint64_t tachyon_this_thread() { return (uint64_t)::pthread_self(); }  // a number or a pointer

    // Short waits, one after the other, must not take the GIL each: where others want it, that is 5 ms.
    static inline bool tachyon_signals_due() {
        static thread_local uint64_t last = 0;
        const uint64_t now = tachyon::now_ns();
        if (now - last < tachyon::kSlice - tachyon::kMillisecond) return false;  // a whole slice always counts
        last = now;
        return true;
    }
    """
    enum:
        kInUseByPython
        kInUseByNogil
        kLentProducer
        kLentConsumer
    void tachyon_heavy_barrier() noexcept nogil
    int tachyon_look(const int* word) noexcept nogil
    void tachyon_set(int* word, int value) noexcept nogil
    int tachyon_enter_nogil(int* in_use, const int* closing, int guards, int held) noexcept nogil
    bint tachyon_leave_nogil(int* in_use, const int* closing) noexcept nogil
    bint tachyon_begin_close(int* closed) noexcept nogil
    void tachyon_end_close(int* closed) noexcept nogil
    uint64_t tachyon_deadline(long long timeout_ns) noexcept nogil
    bint tachyon_signals_due() noexcept nogil
    uint64_t tachyon_this_thread() noexcept nogil


# ---- one bus ---------------------------------------------------------------------------------------------------------


cdef inline bint enter_nogil(Bus self) noexcept nogil:
    if self._core == NULL:
        return False
    cdef int entered = tachyon_enter_nogil(&self._in_use, <const int*>&self._closing, self._guards, self._held)
    if entered < 0:
        close_core(self)
    return entered > 0


cdef inline void leave_nogil(Bus self) noexcept nogil:
    if tachyon_leave_nogil(&self._in_use, <const int*>&self._closing):
        close_core(self)


cdef void close_core(Bus self) noexcept nogil:
    if tachyon_begin_close(&self._closed):
        tachyon_core(self._core).close(<core.End><int>self._closing)
        tachyon_end_close(&self._closed)


cdef int refused_nogil(Bus self) noexcept nogil:
    """Why enter_nogil said no."""
    if self._core == NULL or self._closing:
        return <int>Status.closed
    if tachyon_core(self._core).state() == Status.forked:
        return <int>Status.forked
    return <int>(Status.claim_open if self._guards != self._held else Status.busy)


# What nogil code holds counts as open guards too: Python methods are refused, and the memory stays.
cdef inline void hold(Bus self, int count) noexcept nogil:
    self._guards += count
    self._held += count


cdef inline void let_go(Bus self, int count) noexcept nogil:
    self._guards -= count
    self._held -= count


cdef int let_go_refused(Bus self, int count) noexcept nogil:
    """As refused_nogil, for what gives something back: after close() that is counted, so that the memory can go."""
    if self._closing and self._held >= count:
        let_go(self, count)
    return refused_nogil(self)


# After these statuses of commit, abort or release there is nothing left to give back.
cdef inline bint is_over(Status status) noexcept nogil:
    return status == Status.ok or <int>status >= <int>Status.peer_closed


# For wait_readable and wait_writable, of a lent ring too.
cdef int wait_once(Bus self, bint readable, uint64_t size, long long timeout_ns) noexcept nogil:
    cdef bint entered = enter_nogil(self)
    if not entered and not is_lent_here(self):
        return refused_nogil(self)
    cdef Status status = tachyon_core(self._core).check()
    if status == Status.ok and readable:
        status = tachyon_core(self._core).wait_readable(tachyon_deadline(timeout_ns))
    elif status == Status.ok:
        status = tachyon_core(self._core).wait_writable(size, tachyon_deadline(timeout_ns))
    if entered:
        leave_nogil(self)
    return <int>status


# One wait of a blocking method, and the signals after it: ok: try again; full or empty: the time is over. `until` is 0
# at first.
cdef int wait_for_room(Bus self, uint64_t size, long long timeout_ns, uint64_t* until) except -1 nogil:
    if is_late(timeout_ns, until):
        return <int>Status.full
    if not enter_nogil(self):
        return refused_nogil(self)
    cdef Status status = tachyon_core(self._core).wait_writable(size, until[0])
    leave_nogil(self)
    return after_wait(status)


cdef int wait_for_message(Bus self, long long timeout_ns, uint64_t* until) except -1 nogil:
    if is_late(timeout_ns, until):
        return <int>Status.empty
    if not enter_nogil(self):
        return refused_nogil(self)
    cdef Status status = tachyon_core(self._core).wait_readable(until[0])
    leave_nogil(self)
    return after_wait(status)


cdef bint is_late(long long timeout_ns, uint64_t* until) noexcept nogil:
    if until[0] != 0:
        return core.now_ns() >= until[0]
    until[0] = tachyon_deadline(timeout_ns)
    return timeout_ns == 0


cdef int after_wait(Status status) except -1 nogil:
    if status == Status.ok:
        return 0
    if status != Status.full and status != Status.empty and status != Status.interrupted:
        return <int>status
    if tachyon_signals_due() or status == Status.interrupted:
        with gil:
            PyErr_CheckSignals()
    return 0


# ---- lending ---------------------------------------------------------------------------------------------------------


cdef inline bint is_lent(Bus self) noexcept nogil:
    return tachyon_look(&self._in_use) >= kLentProducer


# Whoever has it may give it back at any moment, and close the bus: nobody else can be let in meanwhile.
cdef inline bint is_lent_here(Bus self) noexcept nogil:
    return is_lent(self) and self._lent_to == tachyon_this_thread()


# While the ring is lent: who lent it is inside already.
cdef int check_lent(Bus self) noexcept nogil:
    if self._closing:
        return <int>Status.closed
    return <int>tachyon_core(self._core).check()


# ---- both rings of an RpcBus -----------------------------------------------------------------------------------------
#
# Calls and replies share what is known of each id, so one nogil method enters both.


cdef inline bint enter_both(RpcBus self) noexcept nogil:
    if not enter_nogil(self._calls):
        return False
    if enter_nogil(self._replies):
        return True
    leave_nogil(self._calls)
    return False


cdef inline void leave_both(RpcBus self) noexcept nogil:
    leave_nogil(self._replies)
    leave_nogil(self._calls)


cdef int refused_both(RpcBus self) noexcept nogil:
    cdef int status = refused_nogil(self._calls)
    return status if status != <int>Status.busy else refused_nogil(self._replies)


cdef int not_this_side(RpcBus self) noexcept nogil:
    return <int>(Status.closed if self._caller == NULL and self._callee == NULL else Status.wrong_side)


# As wait_for_room. Replies are set aside meanwhile: a callee that waits for room for one would never come to our call.
cdef int wait_to_call(RpcBus self, uint64_t size, long long timeout_ns, uint64_t* until) except -1 nogil:
    cdef uint64_t slice_end
    cdef bint more = False, unfinished = False
    cdef int status
    if is_late(timeout_ns, until):
        return <int>Status.full
    if enter_both(self):
        rpc_caller(self).gather()
        more = rpc_caller(self).in_flight() != 0
        unfinished = rpc_caller(self).unfinished()
        leave_both(self)
    if unfinished:  # the wait that looks at signals is skipped
        after_wait(Status.full)
    slice_end = min(until[0], core.now_ns() + (0 if unfinished else GATHER_EVERY)) if more else until[0]
    status = wait_for_room(self._calls, size, -1, &slice_end)
    return <int>Status.ok if status == <int>Status.full else status
