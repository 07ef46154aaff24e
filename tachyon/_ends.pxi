# Included by _tachyon.pyx: ends of a bus, or of an RPC, that one process makes and others use.

import sys
import weakref

cdef extern from *:
    """
    static tachyon::PairEnd* tachyon_make_ends(SetupOutcome& outcome, const tachyon::ListenOptions& options,
                                               tachyon::Side producer, const tachyon::Interrupt& interrupt,
                                               tachyon::PairEnd*& connector) {
        return tachyon_set_up(outcome, [&] {
            auto ends = tachyon::PairEnd::make(options, producer, interrupt);
            auto listener = std::make_unique<tachyon::PairEnd>(std::move(ends.first));
            connector = new tachyon::PairEnd(std::move(ends.second));
            return listener.release();
        });
    }
    static tachyon::Side tachyon_side(tachyon::Established* established) { return established->connection.side(); }
    static tachyon::PairEnd* tachyon_end_from(int number) {
        return new tachyon::PairEnd(tachyon::Descriptor(number));
    }

    // Null with failure still -1 and nothing to say: somebody else has taken it.
    static tachyon::Meeting* tachyon_take_end(SetupOutcome& outcome, tachyon::PairEnd& end, tachyon::Kind kind,
                                              tachyon::Side& producer) {
        return tachyon_set_up(outcome, [&]() -> tachyon::Meeting* {
            auto taken = end.take();
            if (!taken) return nullptr;
            if (taken->kind != kind) {
                tachyon::fail_handshake(EPROTOTYPE, "this descriptor is an end of another class; use the same one");
            }
            producer = taken->producer;
            return taken->meeting.release();
        });
    }

    // Null with failure still -1 and nothing to say: the other side is not there yet. until 0: do not wait.
    static tachyon::Established* tachyon_meet(SetupOutcome& outcome, tachyon::Meeting& meeting, uint64_t until,
                                              const tachyon::Interrupt& interrupt) {
        return tachyon_set_up(outcome, [&]() -> tachyon::Established* {
            if (until != 0) return new tachyon::Established(meeting.meet(until, interrupt));
            auto established = meeting.advance(interrupt);
            return established ? new tachyon::Established(std::move(*established)) : nullptr;
        });
    }
    """
    Side tachyon_side(core.Established* established) noexcept
    core.PairEnd* tachyon_make_ends(SetupOutcome& outcome, const core.ListenOptions& options, Side producer,
                                    const core.Interrupt& interrupt, core.PairEnd*& connector) noexcept nogil
    core.PairEnd* tachyon_end_from(int number) except +
    core.Meeting* tachyon_take_end(SetupOutcome& outcome, core.PairEnd& end, Kind kind, Side& producer) noexcept
    core.Established* tachyon_meet(SetupOutcome& outcome, core.Meeting& meeting, uint64_t until,
                                   const core.Interrupt& interrupt) noexcept nogil


cdef str _END_PATH = "<pair>"  # where a path stands in texts
cdef uint64_t _END_SLICE = 250_000_000  # ns between looks at what has become of the other end here

# How often this process has forked, or its parent up to then.
cdef long _forks = 0


def _count_fork():
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork, after_in_child=_count_fork)

_OPENED = "this end has been opened; an end is used once, by the bus that came of it"
_CLOSED = "this end is closed; make a new pair"
_FAILED = "this end has failed to open; make a new pair"
_TAKEN = "this end has been taken already, here or by another process; each is used once, by the first that opens it"
_LET_GO = "this process has opened the other end, and let go of this one when it had been handed to a child"
_FORKED = "this end is being opened by the parent of this process; take another one"


cdef object spawning_popen():
    """What multiprocessing is just starting a child by, in this thread; or None."""
    context = sys.modules.get("multiprocessing.context")
    return None if context is None else context.get_spawning_popen()


def _rebuild_end(cls, duplicate):
    """In the child. `duplicate`: None of an end that was closed when it was handed over."""
    if duplicate is None:
        end = cls.__new__(cls)
        end.close()
        return end
    return cls.from_fileno(duplicate.detach())


cdef class _End:
    """What BusEnd and RpcEnd share."""

    cdef core.PairEnd* _box      # until it is taken here
    cdef core.Meeting* _meeting  # from then on, until both sides are there
    cdef Side _producer
    cdef str _gone               # why it is of no more use
    cdef bint _waiting
    cdef int _closing            # looked at by who waits
    cdef object _other           # weak, in the process that made both
    cdef list _given             # weak references: to what starts the children that got it by pickle
    cdef long _forks_before
    cdef object _bus             # between __enter__ and __exit__
    cdef object __weakref__

    def __init__(self, *args, **kwargs):
        raise TypeError(f"a {type(self).__name__} is made by pair(), pipe() or rpc_pair(), or from_fileno(number)")

    def __cinit__(self):
        self._given = []
        self._forks_before = _forks

    def __dealloc__(self):
        self._drop()

    cdef void _drop(self) noexcept:
        cdef core.PairEnd* box = self._box
        cdef core.Meeting* meeting = self._meeting
        self._box = NULL
        self._meeting = NULL
        del box
        del meeting

    cdef Kind _kind(self) noexcept:
        return Kind.bus

    cdef object _adopt(self, core.Established* established):
        return None

    # ---- taking it ----

    cdef bint _is_given(self) noexcept:
        """Has another process got it? What only is on its way there needs it to be open here."""
        if self._forks_before != _forks:
            return True
        for reference in self._given:
            popen = reference()
            if popen is None or hasattr(popen, "pid"):
                return True
        return False

    cdef int _let_go_of_other(self) except -1:
        """Keep no copy of an end that another process has got: it would look like somebody who may still come."""
        cdef _End other = None if self._other is None else self._other()
        if other is not None and other._box != NULL and other._is_given():
            other._drop()
            other._gone = _LET_GO
        return 0

    cdef int _check(self) except -1:
        if self._meeting != NULL and self._meeting.forked():
            raise BusClosedError(_FORKED)
        if self._waiting:
            raise BusBusyError("this end is being opened by another thread")
        if self._box == NULL and self._meeting == NULL:
            raise BusClosedError(self._gone or _CLOSED)
        return 0

    def _take(self):
        """Make it this process's own. False: it is taken, closed, or in use here."""
        cdef SetupOutcome outcome
        self._let_go_of_other()
        if self._box == NULL:
            return False
        self._meeting = tachyon_take_end(outcome, self._box[0], self._kind(), self._producer)
        if self._meeting == NULL and not outcome.what.empty():
            if self._box.descriptor() < 0:
                self._drop()
                self._gone = _FAILED
            raise_setup_failure(&outcome, None)
        cdef core.PairEnd* box = self._box
        self._box = NULL
        del box
        self._gone = _TAKEN if self._meeting == NULL else None
        return self._meeting != NULL

    def _forget(self):
        """Let go of a copy that is not in use here."""
        if self._meeting == NULL:
            self.close()

    # ---- opening it ----

    # The meeting, until then. NULL: it is not over. until 0: do not wait.
    cdef core.Established* _meet(self, uint64_t until) except? NULL:
        cdef SetupOutcome outcome
        cdef core.Interrupt interrupt = interrupted_by_signals(&self._closing)
        cdef core.Established* established = NULL
        self._waiting = True
        with nogil:
            established = tachyon_meet(outcome, self._meeting[0], until, interrupt)
        self._waiting = False
        if self._closing:
            del established
            self._drop()
            if not PyErr_Occurred():
                raise BusClosedError(_CLOSED)
            return NULL  # with what a handler has raised
        if established != NULL or outcome.what.empty():
            return established
        if outcome.failure == <int>core.SetupFailure.timed_out:
            return NULL
        if self._meeting.descriptor() < 0:
            self._drop()
            self._gone = _FAILED
        raise_setup_failure(&outcome, None)
        return NULL

    cdef object _open(self, uint64_t deadline):
        cdef core.Established* established = NULL
        cdef uint64_t until
        self._check()
        if self._meeting == NULL and not self._take():
            raise BusClosedError(self._gone)
        while True:
            self._let_go_of_other()
            if self._meeting == NULL:  # closed by another thread meanwhile
                raise BusClosedError(self._gone or _CLOSED)
            until = 0 if deadline == 0 else min(deadline, core.now_ns() + _END_SLICE)
            established = self._meet(until)
            if established != NULL or deadline == 0 or core.now_ns() >= deadline:
                break
        if established == NULL:
            return None
        self._drop()
        self._gone = _OPENED
        return self._adopt(established)

    def open(self, *, timeout=None):
        """Wait until the process that has the other end opens it too, and return the bus that comes of both.

        timeout: seconds; None waits as long as somebody may still come. After a TachyonTimeoutError one may go on.
        Raises HandshakeError when nobody holds the other end any more: it was closed or dropped, or its process died;
        at the latest 5 s after the death of the maker. BusClosedError: this end is closed, or has been used, here or
        by another process. BusBusyError: by another thread. MemoryError.
        """
        bus = self._open(deadline_after(timeout))
        if bus is None:
            raise TachyonTimeoutError("nobody came to the other end within the timeout; one may go on waiting")
        return bus

    def try_open(self):
        """Open it as far as that goes without waiting: the bus, or None while the other side is not there. Otherwise as
        open."""
        return self._open(0)

    # ---- handing it over ----

    def fileno(self):
        """Return the descriptor that is this end: to pass on to a program that is started, which has from_fileno().

        Once it is in use, one for select, poll and their like: readable when try_open() may get further.
        """
        self._check()
        return self._meeting.descriptor() if self._meeting != NULL else self._box.descriptor()

    @classmethod
    def from_fileno(cls, number):
        """Return the end that has come here as an open descriptor, which is its own from now on."""
        descriptor = operator.index(number)
        os.fstat(descriptor)
        cdef _End end = cls.__new__(cls)
        end._box = tachyon_end_from(descriptor)
        return end

    def _check_spawning(self, name):
        if spawning_popen() is None:
            raise TypeError(
                f"a {name} can be pickled only into a process that is being started: "
                "pass it in args of a Process, or in initargs of a ProcessPoolExecutor"
            )

    def __reduce__(self):
        name = type(self).__name__
        self._check_spawning(name)
        popen = spawning_popen()
        if self._meeting != NULL or self._gone is _OPENED:
            raise BusClosedError(f"this {name} is in use here; hand it over before its first use")
        if self._box == NULL:
            return _rebuild_end, (type(self), None)
        self._given.append(weakref.ref(popen))
        return _rebuild_end, (type(self), popen.DupFd(popen.duplicate_for_child(self._box.descriptor())))

    # ---- the rest ----

    @property
    def closed(self):
        """True once it has been opened or closed, was found to be taken, and in a forked child of who takes it."""
        if self._meeting != NULL:
            return self._meeting.forked()
        return self._box == NULL

    def close(self):
        """Let go of it. A copy that another process has got stays as it is. Idempotent; allowed from any thread, and
        ends an open() with BusClosedError. Without effect on the bus that came of it."""
        if self._waiting and not self._meeting.forked():
            self._closing = 1
        else:
            self._drop()
        self._gone = self._gone or _CLOSED

    def __enter__(self):
        self._bus = self.open()
        return self._bus

    def __exit__(self, exc_type, exc, traceback):
        bus, self._bus = self._bus, None
        bus.__exit__(exc_type, exc, traceback)

    def __repr__(self):
        state = "closed" if self.closed else "not in use yet" if self._meeting == NULL else "being opened"
        return f"<tachyon.{type(self).__name__} {state}>"


@cython.final
cdef class BusEnd(_End):
    """One end of a Bus, made by pair() for another process, or this one: `with end as bus:`, or open().

    Hand it over before its first use: in args of a Process, whatever its start method, or in initargs of a
    ProcessPoolExecutor. It is used once, by the process that opens it first; the Bus belongs to that one. Each copy
    that some process has counts as somebody who may still open it: the maker lets go of its copy by opening the other
    end, or by close(). One thread at a time; close() may come from any.
    """

    cdef object _adopt(self, core.Established* established):
        return new_bus_with_role(established, _END_PATH, self._producer)


@cython.final
cdef class RpcEnd(_End):
    """One end of an RpcBus, made by rpc_pair(). Otherwise as BusEnd."""

    cdef Kind _kind(self) noexcept:
        return Kind.rpc

    cdef object _adopt(self, core.Established* established):
        # The connector calls.
        return new_rpc_bus(established, _END_PATH, tachyon_side(established) == Side.connector)


# (the listener's, the connector's)
cdef tuple make_ends(type cls, const core.ListenOptions& options, Side producer):
    cdef SetupOutcome outcome
    cdef core.Interrupt interrupt = interrupted_by_signals(NULL)
    cdef _End first = cls.__new__(cls), second = cls.__new__(cls)
    with nogil:
        first._box = tachyon_make_ends(outcome, options, producer, interrupt, second._box)
    if first._box == NULL:
        raise_setup_failure(&outcome, None)
    first._other = weakref.ref(second)
    second._other = weakref.ref(first)
    return first, second


def pair(capacity, *, max_large=1 << 30):
    """Make a ring of `capacity` bytes for two other processes, or for this one and another.

    Returns (producer's end, consumer's end): two BusEnds. The memory is reserved now. capacity, max_large: as
    Bus.listen. Raises CapacityError, MemoryError; HandshakeError without descriptors, or with too many ends that
    nobody uses.
    """
    return make_ends(BusEnd, listen_options(Kind.bus, (capacity,), None, 0, max_large), Side.listener)


def rpc_pair(cap_fwd=1 << 20, cap_rev=1 << 20, *, max_large=1 << 30):
    """Make rings of `cap_fwd` bytes for calls and `cap_rev` for replies, as pair() makes one.

    Returns (caller's end, callee's end): two RpcEnds. max_large: for each way.
    """
    options = listen_options(Kind.rpc, (cap_fwd, cap_rev), None, 0, max_large)
    callee, caller = make_ends(RpcEnd, options, Side.undecided)
    return caller, callee
