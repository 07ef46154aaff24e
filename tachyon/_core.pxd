# cython: language_level=3
# The C++ core as _tachyon.pyx sees it. Private: nothing here is for other projects.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.memory cimport unique_ptr
from libcpp.optional cimport optional
from libcpp.string cimport string
from libcpp.vector cimport vector
from posix.types cimport uid_t


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

    cdef enum class SetupFailure(int):
        handshake
        timed_out
        interrupted
        capacity
        memory


cdef extern from "tachyon/ring/layout.hpp" namespace "tachyon" nogil:
    const uint64_t kMinCapacity
    const uint64_t kMaxCapacity

    cdef enum class End(uint32_t):
        closed
        aborted


cdef extern from "tachyon/wait/wait.hpp" namespace "tachyon" nogil:
    const uint64_t kNever
    uint64_t now_ns() noexcept


cdef extern from "tachyon/ring/ring.hpp" namespace "tachyon" nogil:
    cdef cppclass Frame:
        const uint8_t* payload
        uint64_t position
        uint64_t correlation_id
        uint32_t size
        uint32_t type_id

    cdef cppclass Producer:
        pass

    cdef cppclass Consumer:
        pass

    uint64_t ring_layout() noexcept


cdef extern from "tachyon/link/handshake.hpp" namespace "tachyon" nogil:
    cdef cppclass Interrupt:
        cpp_bool (*asked)(void*) noexcept
        void* context

    cdef enum class Kind(uint16_t):
        bus
        rpc

    cdef cppclass ListenOptions:
        Kind kind
        vector[uint64_t] capacities
        uint64_t deadline
        unsigned int mode

    cdef cppclass ConnectOptions:
        uint64_t deadline
        optional[uid_t] uid
        uint64_t max_capacity


cdef extern from "tachyon/bus.hpp" namespace "tachyon" nogil:
    cdef enum class Side(uint32_t):
        undecided
        listener
        connector

    cdef enum class Look(cpp_bool):
        sometimes
        always

    cdef cppclass Stats:
        Side side
        Side producer
        uint64_t messages
        uint64_t position
        uint64_t parks
        uint64_t wakes
        uint64_t spin_budget_ns

    cdef cppclass Bus:
        Status try_send(const void* data, uint64_t size, uint32_t type_id, uint64_t correlation_id) noexcept
        Status try_send(
            const void* data, uint64_t size, uint32_t type_id, uint64_t correlation_id, Look look
        ) noexcept
        Status try_send_quietly(const void* data, uint64_t size, uint32_t type_id) noexcept
        void wake_consumer() noexcept
        Status try_claim(uint64_t size, uint8_t*& payload) noexcept
        Status commit(uint32_t size, uint32_t type_id, uint64_t correlation_id) noexcept
        Status commit(uint32_t size, uint32_t type_id, uint64_t correlation_id, Look look) noexcept
        Status abort() noexcept
        Status wait_writable(uint64_t size, uint64_t until) noexcept
        Status check_read() noexcept
        Status wait_read(uint64_t until) noexcept
        Status finish() noexcept
        Status wait_left(uint64_t until) noexcept
        Status try_peek(Frame& frame) noexcept
        Status release(const Frame& frame) noexcept
        Status release_and_tell(const Frame& frame) noexcept
        cpp_bool expect_held(size_t count) noexcept
        void put_back(const Frame& frame) noexcept
        void hand_back() noexcept
        Status wait_readable(uint64_t until) noexcept
        void prepare_wait() noexcept
        Status wait_beside(uint64_t until) noexcept
        Status lend_producer(Producer*& producer) noexcept
        Status lend_consumer(Consumer*& consumer) noexcept
        void give_back() noexcept
        Status check() noexcept
        Status release_checked(const Frame& frame) noexcept
        cpp_bool spin_readable(uint64_t looks) noexcept
        cpp_bool spin_writable(uint64_t size, uint64_t looks) noexcept
        void close(End end) noexcept
        void request_close() noexcept
        void set_polling_mode(cpp_bool pure_spin) noexcept
        int set_numa_node(unsigned int node) noexcept
        uint64_t capacity() noexcept
        uint64_t max_message_size() noexcept
        int peer_pid() noexcept
        Stats stats() noexcept
        Status state() noexcept


cdef extern from "tachyon/rpc.hpp" namespace "tachyon" nogil:
    const uint64_t kMostCallsInFlight
    const uint64_t kMostBytesSetAside

    cdef cppclass RpcRings:
        unique_ptr[Bus] calls
        unique_ptr[Bus] replies

    cdef cppclass Caller:
        Caller(RpcRings&) except +
        uint64_t next_id() noexcept
        void called(uint64_t id) noexcept
        Status try_call(const void* data, uint64_t size, uint32_t msg_type, uint64_t& id) noexcept
        Status try_wait(uint64_t id, Frame& reply) noexcept
        void release(const Frame& reply) noexcept
        void gather() noexcept
        cpp_bool unfinished() noexcept
        uint64_t passed() noexcept
        cpp_bool cancel(uint64_t id) noexcept
        uint64_t in_flight() noexcept
        uint64_t dropped() noexcept
        uint64_t set_aside() noexcept

    cdef cppclass Callee:
        Callee(RpcRings&) except +
        Status try_serve(Frame& call) noexcept
        Status try_reply(uint64_t id, const void* data, uint64_t size, uint32_t msg_type) noexcept
        cpp_bool can_reply(uint64_t id) noexcept
        void replied(uint64_t id) noexcept


cdef extern from "tachyon/link/handshake.hpp" namespace "tachyon" nogil:
    cdef cppclass Established:
        pass


cdef extern from "tachyon/listener.hpp" namespace "tachyon" nogil:
    cdef cppclass Listener:
        int descriptor() noexcept
        cpp_bool forked() noexcept


cdef extern from "tachyon/wait_set.hpp" namespace "tachyon" nogil:
    cdef cppclass WaitSet:
        void await_frame(uint64_t token, Bus& bus) noexcept
        void await_room(uint64_t token, Bus& bus, uint64_t size) noexcept
        void remove(uint64_t token) noexcept
        Status wait(uint64_t until, uint64_t& token) noexcept
        Status poll(uint64_t& token) noexcept
        uint64_t parks() noexcept
