# Included by _tachyon.pyx: a bus in a loop that waits for other things too.

cdef extern from *:
    """
    static tachyon::Bus* tachyon_descriptor(SetupOutcome& outcome, tachyon::Bus* bus, int& number) {
        return tachyon_set_up(outcome, [&] {
            number = bus->descriptor();
            return bus;
        });
    }
    static tachyon::Bus* tachyon_arm(SetupOutcome& outcome, tachyon::Bus* bus, bool for_room, bool& armed) {
        return tachyon_set_up(outcome, [&] {
            armed = bus->arm(for_room);
            return bus;
        });
    }
    """
    core.Bus* tachyon_descriptor(SetupOutcome& outcome, core.Bus* bus, int& number) noexcept
    core.Bus* tachyon_arm(SetupOutcome& outcome, core.Bus* bus, cpp_bool for_room, cpp_bool& armed) noexcept nogil


cdef int descriptor_of(core.BusHandle* handle) except -1:
    cdef SetupOutcome outcome
    cdef int number = -1
    check_open(handle)
    enter(handle)
    cdef core.Bus* done = tachyon_descriptor(outcome, handle.bus(), number)
    handle.leave()
    if done == NULL:
        raise_setup_failure(&outcome, path_of(handle))
    return number


cdef bint arm(core.BusHandle* handle, bint for_writing) except -1:
    cdef SetupOutcome outcome
    cdef cpp_bool armed = False
    check_open(handle)
    enter(handle)
    cdef core.Bus* bus = handle.bus()
    cdef core.Bus* done
    with nogil:  # it may spin for some microseconds
        done = tachyon_arm(outcome, bus, for_writing, armed)
    handle.leave()
    if done == NULL:
        raise_setup_failure(&outcome, path_of(handle))
    return armed


cdef bint disarm(core.BusHandle* handle) except -1:
    check_open(handle)
    enter(handle)
    cdef bint there = handle.bus().disarm()
    handle.leave()
    return there


cdef class _BusBell(_BusArrays):
    """What Bus has for a loop that waits for other things too."""

    def fileno(self):
        """Return a descriptor for select, epoll, Qt, GLib, trio and their like: one, for reading; see arm().

        It is the same until the bus is closed; take it out of the loop before that. Never read from it.
        """
        return descriptor_of(handle_of(<Bus?>self))

    def arm(self, for_writing=False):
        """Before you wait for fileno(): ask the peer to ring. False: do not wait, something may be there already.

        One round is: try (try_recv); if there was nothing, arm; if that is True, wait until fileno() is readable, and
        disarm; try again. for_writing: of the side that sends, after a try_send that found no room, or a wait_read or
        finish that ran out of time: it rings once there may be what that lacked. It may ring for nothing. It rings at
        the peer's end too, and from then on arm() is False: the next try says how it ended. Between two rings neither
        side makes a system call for a message.
        Raises BusBusyError, BusClosedError, HandshakeError (no free descriptor).
        """
        return arm(handle_of(<Bus?>self), bool(for_writing))

    def disarm(self):
        """Once fileno() is readable: silence it, until the next ring after an arm(). Then try.

        False: the peer is gone, and the descriptor will be readable for ever: take it out of the loop.
        """
        return disarm(handle_of(<Bus?>self))
