# Included by _tachyon.pyx: many peers at one path, and one thread that waits for all of them.

cdef extern from *:
    """
    #include "tachyon/wait_set.hpp"

    static tachyon::Listener* tachyon_new_listener(SetupOutcome& outcome, const std::string& path,
                                                   const tachyon::ListenOptions& options,
                                                   const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(outcome, [&] { return new tachyon::Listener(path, options, interrupt); });
    }

    // Null with failure still -1 and nothing to say: nobody is there now. until 0: do not wait.
    static tachyon::Established* tachyon_accept(SetupOutcome& outcome, tachyon::Listener& listener, uint64_t until,
                                                const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(outcome, [&]() -> tachyon::Established* {
            if (until != 0) return new tachyon::Established(listener.accept(until, interrupt));
            auto established = listener.try_accept();
            return established ? new tachyon::Established(std::move(*established)) : nullptr;
        });
    }
    static tachyon::Bus* tachyon_adopt(SetupOutcome& outcome, tachyon::Established* established) {
        const std::unique_ptr<tachyon::Established> owned(established);
        return tachyon_set_up(outcome, [&] { return tachyon::Bus::adopt(std::move(*owned)).release(); });
    }
    static tachyon::RpcRings* tachyon_adopt_rpc(SetupOutcome& outcome, tachyon::Established* established) {
        const std::unique_ptr<tachyon::Established> owned(established);
        return tachyon_set_up(outcome,
                              [&] { return new tachyon::RpcRings(tachyon::adopt_rpc(std::move(*owned))); });
    }

    static tachyon::WaitSet* tachyon_new_wait_set(SetupOutcome& outcome) {
        return tachyon_set_up(outcome, [] { return new tachyon::WaitSet(); });
    }
    static tachyon::WaitSet* tachyon_watch(SetupOutcome& outcome, tachyon::WaitSet& set, uint64_t token,
                                           tachyon::Bus* bus, int descriptor) {
        return tachyon_set_up(outcome, [&] {
            bus != nullptr ? set.add(token, *bus) : set.add_descriptor(token, descriptor);
            return &set;
        });
    }
    """
    core.Listener* tachyon_new_listener(SetupOutcome& outcome, const string& path, const core.ListenOptions& options,
                                        const core.Interrupt& interrupt) noexcept nogil
    core.Established* tachyon_accept(SetupOutcome& outcome, core.Listener& listener, uint64_t until,
                                     const core.Interrupt& interrupt) noexcept nogil
    core.Bus* tachyon_adopt(SetupOutcome& outcome, core.Established* established) noexcept
    core.RpcRings* tachyon_adopt_rpc(SetupOutcome& outcome, core.Established* established) noexcept
    core.WaitSet* tachyon_new_wait_set(SetupOutcome& outcome) noexcept
    core.WaitSet* tachyon_watch(SetupOutcome& outcome, core.WaitSet& wait_set, uint64_t token, core.Bus* bus,
                                int descriptor) noexcept


# ---- listeners -------------------------------------------------------------------------------------------------------


cdef class _Listener:
    """What Listener and RpcListener share. One thread at a time accepts; close() may come from any."""

    cdef core.Listener* _core
    cdef object _path
    cdef object _raised  # by a signal handler, during accept
    cdef int _in_use
    cdef bint _closing
    cdef object __weakref__

    def __dealloc__(self):
        cdef core.Listener* opened = self._core
        self._core = NULL
        del opened

    cdef int _open(self, object path, Kind kind, object capacity, object reverse, object mode) except -1:
        cdef string where = as_path(path)
        cdef core.ListenOptions options = listen_options(kind, capacity, reverse, None, mode)
        cdef SetupOutcome outcome
        cdef list raised = []
        cdef core.Interrupt interrupt = interrupted_by_signals(raised)
        with nogil:
            self._core = tachyon_new_listener(outcome, where, options, interrupt)
        if self._core == NULL:
            raise setup_failed(&outcome, path, raised)
        self._path = path
        return 0

    cdef int _check(self) except -1:
        if self._core == NULL or self._closing:
            raise BusClosedError(f"this listener ({self._path}) is closed; make a new one")
        if self._core.forked():
            raise BusClosedError(f"this listener ({self._path}) belongs to the parent of this process; make one here")
        return 0

    # NULL: nobody is there now.
    cdef core.Established* _accept(self, uint64_t until) except? NULL:
        cdef SetupOutcome outcome
        cdef core.Interrupt interrupt
        cdef core.Established* established = NULL
        self._check()
        if not tachyon_enter(&self._in_use):
            raise BusBusyError("this listener is in use by another thread; one at a time may accept")
        self._raised = None
        interrupt.asked = accept_interrupted
        interrupt.context = <void*>self
        with nogil:
            established = tachyon_accept(outcome, self._core[0], until, interrupt)
        tachyon_leave(&self._in_use)
        raised, self._raised = self._raised, None
        if self._closing:
            self._finish_close()
            del established
            if raised is not None:
                raise raised
            self._check()
        if established == NULL and (outcome.failure >= 0 or not outcome.what.empty()):
            raise setup_failed(&outcome, self._path, [raised])
        return established

    cdef object _adopt(self, core.Established* established):
        return None

    cdef void _finish_close(self) noexcept:
        cdef core.Listener* opened = self._core
        self._core = NULL
        del opened

    def accept(self, *, timeout=None):
        """Wait for the next peer. timeout: seconds; None waits for ever.

        Raises TachyonTimeoutError, BusBusyError, BusClosedError; HandshakeError or MemoryError when there are no
        descriptors or no memory for one more peer, after which one may go on.
        """
        cdef uint64_t until = deadline_after(timeout)
        return self._adopt(self._accept(until))

    def try_accept(self):
        """Return the next peer if one is there now, else None. Otherwise as accept."""
        cdef core.Established* established = self._accept(0)
        return None if established == NULL else self._adopt(established)

    def fileno(self):
        """Return a descriptor for select, poll and their like: readable when try_accept() may get further."""
        self._check()
        return self._core.descriptor()

    def __iter__(self):
        self._check()
        return self

    def __next__(self):
        return self.accept()

    @property
    def path(self):
        """The socket path, as given."""
        return self._path

    @property
    def closed(self):
        """True after close(), and in a forked child."""
        return self._core == NULL or self._closing or self._core.forked()

    def close(self):
        """Stop listening and remove the socket file. What was accepted lives on. Idempotent; allowed from any thread,
        and ends an accept with BusClosedError."""
        if self._core == NULL:
            return
        self._closing = True
        if tachyon_enter(&self._in_use):
            tachyon_leave(&self._in_use)
            self._finish_close()

    def __enter__(self):
        self._check()
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __repr__(self):
        return f"<tachyon.{type(self).__name__} {self._path!r}{' closed' if self.closed else ''}>"

    def __reduce__(self):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: it belongs to one process")


cdef cpp_bool accept_interrupted(void* context) noexcept nogil:
    return Py_IsInitialized() and accept_interrupted_with_gil(context)


cdef cpp_bool accept_interrupted_with_gil(void* context) noexcept with gil:
    listener = <_Listener>context
    if listener._closing:
        return True
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        listener._raised = error
        return True
    return False


@cython.final
cdef class Listener(_Listener):
    """Many buses at one path: `for bus in Listener(path, capacity)`, or accept(). A context manager.

    Each peer that connects, with Bus.connect, gets a ring of `capacity` bytes of its own; its memory is reserved when
    it comes. capacity, mode: as Bus.listen. A peer that says nothing, or the wrong thing, keeps nobody waiting.
    One thread at a time accepts; the buses may be used by others.
    Raises CapacityError, MemoryError, HandshakeError.
    """

    def __init__(self, socket_path, capacity, *, mode=_OWNER_ONLY):
        if self._core != NULL or self._closing:
            raise TypeError("a Listener is opened once; make a new one")
        self._open(socket_path, Kind.bus, capacity, None, mode)

    cdef object _adopt(self, core.Established* established):
        cdef SetupOutcome outcome
        cdef core.Bus* opened = tachyon_adopt(outcome, established)
        if opened == NULL:
            raise setup_failed(&outcome, self._path, [])
        return new_bus(opened, self._path)


@cython.final
cdef class RpcListener(_Listener):
    """Many callers at one path: each that connects, with RpcBus.connect, becomes an RpcBus that serves.

    Otherwise as Listener. RpcServer serves all of them from one thread.
    """

    def __init__(self, socket_path, cap_fwd=1 << 20, cap_rev=1 << 20, *, mode=_OWNER_ONLY):
        if self._core != NULL or self._closing:
            raise TypeError("an RpcListener is opened once; make a new one")
        self._open(socket_path, Kind.rpc, cap_fwd, cap_rev, mode)

    cdef object _adopt(self, core.Established* established):
        cdef SetupOutcome outcome
        cdef core.RpcRings* rings = tachyon_adopt_rpc(outcome, established)
        if rings == NULL:
            raise setup_failed(&outcome, self._path, [])
        return new_rpc_bus(rings, self._path, False)


# ---- waiting for many ------------------------------------------------------------------------------------------------


@cython.final
cdef class WaitSet:
    """Waits for calls on many RpcBus, and for an RpcListener: what RpcServer is made of. For one thread.

    A bus must be removed before it is closed, and nobody else may use it.
    """

    cdef core.WaitSet* _core
    cdef dict _members  # token: RpcBus or RpcListener
    cdef dict _tokens   # id of that: token
    cdef uint64_t _last

    def __cinit__(self):
        cdef SetupOutcome outcome
        self._core = tachyon_new_wait_set(outcome)
        if self._core == NULL:
            raise setup_failed(&outcome, None, [])
        self._members = {}
        self._tokens = {}

    def __dealloc__(self):
        cdef core.WaitSet* mine = self._core
        self._core = NULL
        del mine

    def add(self, member):
        """Wait for calls on an RpcBus that serves, or for clients of an RpcListener."""
        cdef SetupOutcome outcome
        cdef core.Bus* bus = NULL
        cdef int descriptor = -1
        self._check()
        if isinstance(member, RpcBus):
            need_callee(member, "waiting for calls")
            bus = tachyon_core((<RpcBus>member)._calls._core)
        else:
            descriptor = member.fileno()
        self._last += 1
        if tachyon_watch(outcome, self._core[0], self._last, bus, descriptor) == NULL:
            raise setup_failed(&outcome, None, [])
        self._members[self._last] = member
        self._tokens[id(member)] = self._last

    def remove(self, member):
        """Forget a member. No effect if it is none."""
        token = self._tokens.pop(id(member), None)
        if token is not None:
            del self._members[token]
            self._core.remove(token)

    def await_call(self, RpcBus bus not None):
        """From now on wait for a call on `bus`, a member."""
        check_open(bus._calls)
        self._core.await_frame(self._tokens[id(bus)], tachyon_core(bus._calls._core)[0])

    def await_room(self, RpcBus bus not None, Py_ssize_t size):
        """From now on wait for room for a reply of `size` bytes on `bus`, a member."""
        check_open(bus._replies)
        self._core.await_room(self._tokens[id(bus)], tachyon_core(bus._replies._core)[0], <uint64_t>size)

    def wait(self, timeout=None):
        """Return a member that may have what is waited for, or has ended; None after `timeout` seconds.

        All of them in turn: who was returned last is looked at last.
        """
        cdef uint64_t deadline = deadline_after(timeout)
        cdef uint64_t token = 0
        self._check()
        cdef Status status = self._core.poll(token)
        while status != Status.ok:
            with nogil:
                status = self._core.wait(deadline, token)
            PyErr_CheckSignals()
            if status == Status.forked:
                raise BusClosedError("this WaitSet belongs to the parent of this process; make one here")
            if status != Status.ok and core.now_ns() >= deadline:
                return None
        return self._members[token]

    def close(self):
        """Forget all members and give the descriptor back. Idempotent. By the thread that waits, or once none does."""
        cdef core.WaitSet* mine = self._core
        self._core = NULL
        self._members.clear()
        self._tokens.clear()
        del mine

    cdef int _check(self) except -1:
        if self._core == NULL:
            raise BusClosedError("this WaitSet is closed; make a new one")
        return 0

    def __len__(self):
        return len(self._members)

    def __reduce__(self):
        raise TypeError("a WaitSet cannot be pickled or copied")
