# cython: language_level=3
#
# Tier 2: the ring itself, header-only, inlined into your module. Build it as C++20, with tachyon.get_include() among
# its include_dirs; there is nothing to link. docs/cython.md has a complete example.
#
# One way in, borrow_producer or borrow_consumer; one way back, give_back. Between the two the ring is yours: every
# other use of that Bus is refused (BusBusyError, BUSY), except wait_readable, wait_writable and check, from the same
# thread. The pointer is good until give_back, and never longer than the Bus. Nothing here is checked: sizes up to
# max_message_size, one claim at a time, frames released oldest first, exactly as peek gave them.
from tachyon._tachyon cimport Bus


cdef extern from "tachyon/error.hpp" namespace "tachyon" nogil:
    cdef enum class Status(int):
        ok
        empty
        full
        interrupted
        too_large
        wrong_side
        claim_open
        no_claim
        peer_closed
        peer_dead
        corrupt
        closed
        forked
        unknown_call
        busy
        bad_type
        peer_aborted
        no_memory


cdef extern from "tachyon/wait/wait.hpp" namespace "tachyon" nogil:
    unsigned long long now_ns() noexcept  # CLOCK_MONOTONIC
    void cpu_relax() noexcept             # between two looks of a spinning loop


cdef extern from "tachyon/ring/ring.hpp" namespace "tachyon" nogil:
    cdef cppclass Frame:
        const unsigned char* payload
        unsigned long long position
        unsigned long long correlation_id
        unsigned int size
        unsigned int type_id

    # Sending never waits: NULL or False is a full ring. Then bus.wait_writable, which also tells of the peer's end.
    cdef cppclass Producer:
        bint try_send(const void* data, unsigned int size, unsigned int type_id) noexcept
        unsigned char* try_claim(unsigned long long size) noexcept
        void commit(unsigned int size, unsigned int type_id) noexcept
        void abort() noexcept

    # peek: ok, empty or corrupt. Empty: bus.wait_readable, which also tells of the peer's end.
    cdef cppclass Consumer:
        Status peek(Frame& frame) noexcept
        void release(const Frame& frame) noexcept
        void put_back(const Frame& frame) noexcept  # undoes the last peek
        void hand_back() noexcept                   # tells the producer of all releases; an empty peek does so too
        bint has_frame() noexcept

    unsigned long long ring_layout() noexcept


# Both raise BusBusyError (in use, a guard is open, lent already, the wrong side), BusClosedError, PeerClosedError or
# PeerDeadError, and TachyonError if this module was compiled against another version's headers. A borrowed producer
# decides the direction, as a first send does.
cdef inline Producer* borrow_producer(Bus bus) except NULL:
    if bus is None:
        raise TypeError("borrow_producer needs a Bus, not None")
    return <Producer*>bus.lend(True, ring_layout())


cdef inline Consumer* borrow_consumer(Bus bus) except NULL:
    if bus is None:
        raise TypeError("borrow_consumer needs a Bus, not None")
    return <Consumer*>bus.lend(False, ring_layout())


# Every way out of the loop leads here (try … finally). A claim that is open is given up, frames that are held become
# the next ones again.
cdef inline int give_back(Bus bus) except -1:
    if bus is None:
        raise TypeError("give_back needs a Bus, not None")
    return bus.take_back()
