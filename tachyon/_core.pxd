# cython: language_level=3
# The C++ core as _tachyon.pyx sees it. Private: nothing here is for other projects.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
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
        no_memory

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
    const uint64_t kTicksBetweenChecks
    uint64_t ticks() noexcept


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


cdef extern from "tachyon/port/waiting.hpp" namespace "tachyon" nogil:
    cdef cppclass Interrupt:
        cpp_bool (*asked)(void*)
        void* context

    cdef cppclass Host:
        pass

    cdef cppclass Waiting:
        uint64_t deadline
        Host host
        uint32_t looks
        uint32_t unlocked_looks


cdef extern from * nogil:
    """
    #include <span>
    using TachyonBytes = std::span<const std::byte>;
    static TachyonBytes tachyon_bytes(const void* data, size_t size) noexcept {
        return {static_cast<const std::byte*>(data), size};
    }
    """
    cdef cppclass Bytes "TachyonBytes":
        size_t size() noexcept

    Bytes bytes_at "tachyon_bytes"(const void* data, size_t size) noexcept


# Not noexcept in C++: see Host. What comes through is no exception of C++, and of Python's only INTERRUPTED tells.
cdef extern from "tachyon/port/inlet.hpp" namespace "tachyon" nogil:
    const uint64_t kLargeCopy

    cdef cppclass Outlet:
        Status try_send(const void* data, uint64_t size, uint32_t type_id) noexcept
        Status send(const void* data, uint64_t size, uint32_t type_id, const Waiting& waiting) noexcept
        Status send(const Bytes& head, const Bytes& data, uint32_t type_id, const Waiting& waiting) noexcept
        Status claim(uint64_t size, uint8_t*& payload, const Waiting& waiting) noexcept
        Status commit(uint32_t size, uint32_t type_id) noexcept
        Status abort() noexcept

    cdef cppclass Inlet:
        Status try_peek(Frame& frame) noexcept
        Status peek(Frame& frame, const Waiting& waiting) noexcept
        void let_go(const Frame& frame) noexcept

        @staticmethod
        void copy_out(void* to, const Frame& frame, const Host& host) noexcept


cdef extern from "tachyon/array.hpp" namespace "tachyon" nogil:
    const size_t kArrayAlignment
    const size_t kMostDimensions

    cdef enum class ArrayFault(uint8_t):
        none

    const char* text_of(ArrayFault fault) noexcept

    cdef cppclass Text "std::string_view":
        const char* data() noexcept
        size_t size() noexcept

    cdef cppclass Array:
        uint8_t bits
        cpp_bool column_major
        cpp_bool swapped
        size_t dimensions
        int64_t shape[8]
        uint64_t item_bytes
        Text description
        Bytes data
        cpp_bool described() noexcept
        uint64_t header_bytes() noexcept

    void write_array_header(uint8_t* to, const Array& array) noexcept


cdef extern from "tachyon/link/handshake.hpp" namespace "tachyon" nogil:
    cdef enum class Kind(uint16_t):
        bus
        rpc

    const uint64_t kDefaultMaxLarge

    cdef cppclass ListenOptions:
        Kind kind
        vector[uint64_t] capacities
        uint64_t deadline
        unsigned int mode
        uint64_t max_large

    cdef cppclass ConnectOptions:
        Kind kind
        uint64_t deadline
        optional[uid_t] uid
        uint64_t max_capacity
        uint64_t max_large


cdef extern from "tachyon/link/pair_end.hpp" namespace "tachyon" nogil:
    cdef cppclass Meeting:
        int descriptor() noexcept
        cpp_bool forked() noexcept

    cdef cppclass PairEnd:
        int descriptor() noexcept


cdef extern from "tachyon/bus.hpp" namespace "tachyon" nogil:
    cdef enum class Side(uint32_t):
        undecided
        listener
        connector

    cdef cppclass Stats:
        Side side
        Side producer
        uint64_t messages
        uint64_t position
        uint64_t parks
        uint64_t wakes
        uint64_t spin_budget_ns

    cdef cppclass Bus(Outlet, Inlet):
        Status try_send(const void* data, uint64_t size, uint32_t type_id) noexcept
        Status try_claim(uint64_t size, uint8_t*& payload) noexcept
        void wake_consumer() noexcept
        Status try_peek(Frame& frame) noexcept
        Status wait_read(const Waiting& waiting) noexcept
        Status finish() noexcept
        Status wait_left(const Waiting& waiting) noexcept
        Status check() noexcept
        Status release(const Frame& frame) noexcept
        cpp_bool expect_held(size_t count) noexcept
        void put_back(const Frame& frame) noexcept
        void hand_back() noexcept
        void set_polling_mode(cpp_bool pure_spin) noexcept
        int set_numa_node(unsigned int node) noexcept
        int trouble() noexcept
        Stats stats() noexcept
        cpp_bool disarm() noexcept
        cpp_bool spin_readable(uint64_t looks) noexcept
        cpp_bool spin_writable(uint64_t size, uint64_t looks) noexcept


cdef extern from "tachyon/batch.hpp" namespace "tachyon" nogil:
    cdef cppclass Batch(Outlet):
        Batch(Bus& bus)
        Status try_send(const void* data, uint64_t size, uint32_t type_id) noexcept


cdef extern from "tachyon/rpc.hpp" namespace "tachyon" nogil:
    const uint64_t kMostCallsInFlight

    cdef cppclass RpcRings:
        pass

    cdef cppclass Caller(Outlet):
        uint64_t next_id() noexcept
        uint64_t last_id() noexcept
        void release(const Frame& reply) noexcept
        Status try_next(Frame& reply) noexcept
        void take(const Frame& reply) noexcept
        void set_aside(const Frame& reply) noexcept
        cpp_bool cancel(uint64_t id) noexcept
        uint64_t in_flight() noexcept
        uint64_t dropped() noexcept
        uint64_t count_aside "set_aside"() noexcept

    cdef cppclass Callee(Inlet):
        cpp_bool can_reply(uint64_t id) noexcept


cdef extern from "tachyon/host/gate.hpp" namespace "tachyon" nogil:
    cdef enum class User "tachyon::Gate::User"(int):
        free

    cdef cppclass Gate:
        int guards() noexcept
        int held() noexcept
        cpp_bool is_lent() noexcept
        cpp_bool is_inside(User user) noexcept


cdef extern from "tachyon/host/bus_handle.hpp" namespace "tachyon" nogil:
    cdef cppclass BusHandle:
        @staticmethod
        BusHandle* never_opened() noexcept
        const string& path() noexcept
        uint64_t capacity() noexcept
        uint64_t max_large_size() noexcept
        int peer_pid() noexcept
        Bus* bus() noexcept
        Gate& gate() noexcept
        Status state() noexcept
        cpp_bool enter() noexcept
        void leave() noexcept
        void open_guard() noexcept
        void end_guard() noexcept
        void close(End how) noexcept
        cpp_bool closing() noexcept
        Status lend(Producer*& producer) noexcept
        Status lend(Consumer*& consumer) noexcept
        Status take_back() noexcept
        # for free code
        Status try_claim(uint64_t size, uint8_t*& payload) noexcept
        Status claim(uint64_t size, uint8_t*& payload, const Waiting& waiting) noexcept
        Status commit(uint32_t size, uint32_t type_id) noexcept
        Status abort() noexcept
        Status try_send(const void* data, uint64_t size, uint32_t type_id) noexcept
        Status send(const void* data, uint64_t size, uint32_t type_id, const Waiting& waiting) noexcept
        Status try_peek(Frame& frame) noexcept
        Status peek(Frame& frame, const Waiting& waiting) noexcept
        Status try_drain(Frame* frames, size_t most, size_t& count) noexcept
        Status drain(Frame* frames, size_t most, size_t& count, const Waiting& waiting) noexcept
        Status release(const Frame& frame) noexcept
        Status release_all(const Frame* frames, size_t count) noexcept
        Status wait_writable(uint64_t size, uint64_t until) noexcept
        Status wait_readable(uint64_t until) noexcept
        Status check() noexcept


cdef extern from "tachyon/host/rpc_handle.hpp" namespace "tachyon" nogil:
    const uint32_t kMostReplyType
    const uint32_t kMostCallType

    cdef cppclass RpcHandle:
        @staticmethod
        RpcHandle* never_opened() noexcept
        BusHandle& calls() noexcept
        BusHandle& replies() noexcept
        Caller* caller() noexcept
        Callee* callee() noexcept
        Outlet* answer(uint64_t id) noexcept
        Inlet* reply_to(uint64_t id) noexcept
        void close(End how) noexcept
        # for free code
        Status claim_call(uint64_t size, uint8_t*& payload, const Waiting& waiting) noexcept
        Status commit_call(uint32_t size, uint32_t msg_type, uint64_t& id) noexcept
        Status abort_call() noexcept
        Status call(
            const void* data, uint64_t size, uint32_t msg_type, uint64_t& id, const Waiting& waiting
        ) noexcept
        Status peek_reply(uint64_t id, Frame& frame, const Waiting& waiting) noexcept
        Status release_reply(const Frame& frame) noexcept
        Status cancel(uint64_t id) noexcept
        Status peek_call(Frame& frame, const Waiting& waiting) noexcept
        Status release_call(const Frame& frame) noexcept
        Status claim_reply(uint64_t id, uint64_t size, uint8_t*& payload, const Waiting& waiting) noexcept
        Status commit_reply(uint64_t id, uint32_t size, uint32_t msg_type) noexcept
        Status abort_reply() noexcept
        Status reply(
            uint64_t id, const void* data, uint64_t size, uint32_t msg_type, const Waiting& waiting
        ) noexcept


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
