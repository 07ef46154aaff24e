# Included by _tachyon.pyx: many peers at one path, and one thread that waits for all of them.

cdef extern from *:
    """
    #include <poll.h>

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

    static bool tachyon_is_quiet(int descriptor) {
        pollfd entry{descriptor, POLLIN, 0};
        return ::poll(&entry, 1, 0) == 0;
    }
    """
    core.Listener* tachyon_new_listener(SetupOutcome& outcome, const string& path, const core.ListenOptions& options,
                                        const core.Interrupt& interrupt) noexcept nogil
    core.Established* tachyon_accept(SetupOutcome& outcome, core.Listener& listener, uint64_t until,
                                     const core.Interrupt& interrupt) noexcept nogil
    cpp_bool tachyon_is_quiet(int descriptor) noexcept


# ---- listeners -------------------------------------------------------------------------------------------------------


cdef class _Listener:
    """What Listener and RpcListener share. One thread at a time accepts; close() may come from any."""

    cdef core.Listener* _core
    cdef object _path
    cdef bint _accepting
    cdef int _closing  # looked at by accept, between its sleeps
    cdef object __weakref__

    def __dealloc__(self):
        cdef core.Listener* opened = self._core
        self._core = NULL
        del opened

    cdef int _open(self, object path, const core.ListenOptions& options) except -1:
        cdef string where = as_path(path)
        cdef SetupOutcome outcome
        cdef core.Interrupt interrupt = interrupted_by_signals(NULL)
        with nogil:
            self._core = tachyon_new_listener(outcome, where, options, interrupt)
        if self._core == NULL:
            raise_setup_failure(&outcome, path)
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
        cdef core.Interrupt interrupt = interrupted_by_signals(&self._closing)
        cdef core.Established* established = NULL
        self._check()
        if self._accepting:
            raise BusBusyError("this listener is in use by another thread; one at a time may accept")
        self._accepting = True
        with nogil:
            established = tachyon_accept(outcome, self._core[0], until, interrupt)
        self._accepting = False
        if self._closing:
            self._finish_close()
            del established
            if not PyErr_Occurred():
                self._check()
            return NULL  # with what a handler has raised
        if established == NULL and (outcome.failure >= 0 or not outcome.what.empty()):
            raise_setup_failure(&outcome, self._path)
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

    def arm(self, for_writing=False):
        """As Bus.arm, before one waits for fileno(). False: try_accept() may get further now."""
        if for_writing:
            raise ValueError("a listener has nothing to write; arm it without for_writing")
        self._check()
        return tachyon_is_quiet(self._core.descriptor())

    def disarm(self):
        """As Bus.disarm; try_accept() is what silences a listener. True."""
        self._check()
        return True

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
        self._closing = 1
        if not self._accepting:
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


@cython.final
cdef class Listener(_Listener):
    """Many buses at one path: `for bus in Listener(path, capacity)`, or accept(). A context manager.

    Each peer that connects, with Bus.connect, gets a ring of `capacity` bytes of its own; its memory is reserved when
    it comes. capacity, mode, max_large: as Bus.listen. A peer that says nothing, or the wrong thing, keeps
    nobody waiting.
    One thread at a time accepts; the buses may be used by others.
    Raises CapacityError, MemoryError, HandshakeError.
    """

    def __init__(self, socket_path, capacity, *, mode=_OWNER_ONLY, max_large=1 << 30):
        if self._core != NULL or self._closing:
            raise TypeError("a Listener is opened once; make a new one")
        self._open(socket_path, listen_options(Kind.bus, (capacity,), None, mode, max_large))

    cdef object _adopt(self, core.Established* established):
        return new_bus(established, self._path)


@cython.final
cdef class RpcListener(_Listener):
    """Many callers at one path: each that connects, with RpcBus.connect, becomes an RpcBus that serves.

    Otherwise as Listener. RpcServer serves all of them from one thread.
    """

    def __init__(self, socket_path, cap_fwd=1 << 20, cap_rev=1 << 20, *, mode=_OWNER_ONLY, max_large=1 << 30):
        if self._core != NULL or self._closing:
            raise TypeError("an RpcListener is opened once; make a new one")
        self._open(socket_path, listen_options(Kind.rpc, (cap_fwd, cap_rev), None, mode, max_large))

    cdef object _adopt(self, core.Established* established):
        return new_rpc_bus(established, self._path, False)
