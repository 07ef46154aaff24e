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
