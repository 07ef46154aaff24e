# Included by _tachyon.pyx: how calls of the core wait in Python. The GIL is the core's Host, and there is one adapter
# for signals: what a handler raises stays set in its thread, and the call ends with Status.interrupted.

cdef extern from *:
    """
    static void tachyon_unlock(void* state) { *static_cast<PyThreadState**>(state) = PyEval_SaveThread(); }
    static void tachyon_lock(void* state) { PyEval_RestoreThread(*static_cast<PyThreadState**>(state)); }

    // `give_up`: an int that says so when it is not 0, or null.
    static thread_local int* tachyon_give_up = nullptr;  // of what the thread does now, if somebody may ask it to

    static bool tachyon_interrupted(void* give_up) {
        // Not once the interpreter has begun to end: a daemon thread that asked for the GIL would find nothing there.
        if (!Py_IsInitialized()) return false;
        if (give_up == nullptr) give_up = tachyon_give_up;
        if (give_up != nullptr && __atomic_load_n(static_cast<int*>(give_up), __ATOMIC_ACQUIRE) != 0) return true;
        const PyGILState_STATE state = PyGILState_Ensure();
        const bool raised = PyErr_CheckSignals() != 0;
        PyGILState_Release(state);
        return raised;
    }

    // Of a caller that holds the GIL: it keeps it for so many looks, 2 … 6 µs; to release and take it costs 30 ns.
    struct PythonWaiting : tachyon::Waiting {
        PythonWaiting() noexcept {
            host = {tachyon_unlock, tachyon_lock, &state};
            interrupt = {tachyon_interrupted, nullptr};
            looks = 128;
        }
        PythonWaiting(const PythonWaiting&) = delete;
        PyThreadState* state = nullptr;
    };

    // Of a caller that does not. timeout: ns; negative: for ever; 0: not at all.
    static tachyon::Waiting tachyon_free_waiting(long long timeout) {
        tachyon::Waiting waiting = tachyon::Waiting::until(
            timeout < 0 ? tachyon::kNever : timeout == 0 ? 0 : tachyon::now_ns() + static_cast<uint64_t>(timeout));
        waiting.interrupt = {tachyon_interrupted, nullptr};
        return waiting;
    }
    static uint64_t tachyon_deadline(long long timeout) { return tachyon_free_waiting(timeout).deadline; }
    """
    cdef cppclass PythonWaiting(core.Waiting):
        pass
    core.Waiting tachyon_free_waiting(long long timeout) noexcept nogil
    uint64_t tachyon_deadline(long long timeout) noexcept nogil
    cpp_bool tachyon_interrupted(void* give_up) noexcept nogil
    int* tachyon_give_up


cdef inline core.Interrupt interrupted_by_signals(void* give_up) noexcept:
    cdef core.Interrupt interrupt
    interrupt.asked = tachyon_interrupted
    interrupt.context = give_up
    return interrupt


@cython.final
cdef class GivingUp:
    """How one thread asks another to give up what it waits for: within 50 ms it raises BusClosedError then."""

    cdef int _asked

    def ask(self):
        """Ask. From any thread, at any time."""
        self._asked = 1

    def run(self, call, args, kwargs):
        """Return call(*args, **kwargs), a listen or connect, which can be asked meanwhile."""
        global tachyon_give_up
        tachyon_give_up = &self._asked
        try:
            return call(*args, **kwargs)
        finally:
            tachyon_give_up = NULL


# What a waiting method without the GIL returns: a status, or -1 where a signal's handler has raised.
cdef inline int free_status(Status status) except -1 nogil:
    return -1 if status == Status.interrupted else <int>status
