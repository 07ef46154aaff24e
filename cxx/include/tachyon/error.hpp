// Purpose: how every part of the core reports failure.
// Threads: values only; anybody may use them anywhere.
//
// Two ways, and only two. Operations on an open bus return a Status: they are noexcept and never allocate. Set-up (listen,
// connect, creating a segment) throws SetupError, because it has a path, an errno and a remedy to tell about.
#pragma once

#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

namespace tachyon {

// The numbers are part of the public Cython surface: append, never renumber.
enum class Status : int {
    ok = 0,
    empty = 1,          // no message now
    full = 2,           // no room now
    interrupted = 3,    // a signal ended the wait: run its handlers, then wait again
    too_large = 4,      // larger than max_large_size()
    wrong_side = 5,     // this side is the consumer and tried to send, or the other way round
    claim_open = 6,     // a claim or a peeked frame is still open
    no_claim = 7,       // commit, abort or release without one
    peer_closed = 8,    // the peer closed on purpose and everything it sent has been read
    peer_dead = 9,      // the peer's process ended, or its socket hung up, without a close
    corrupt = 10,       // the peer wrote something impossible; this handle is of no further use
    closed = 11,        // our own handle has been closed
    forked = 12,        // our own handle belongs to the parent of this process
    unknown_call = 13,  // no such correlation_id: never issued or served, answered already, cancelled, or dropped
    busy = 14,          // in use by another thread, or lent; said by the layers above, never by the core itself
    bad_type = 15,      // a msg_type out of its bounds; said by the layers above
    peer_aborted = 16,  // the peer gave up on purpose, in the middle; everything it had committed has been read
    no_memory = 17,  // for a message larger than the ring there is no memory, or no descriptor; free some and try again
};

// After one of these an open claim or frame is gone: there is nothing left to commit, abort or release.
constexpr bool ends_hold(Status status) noexcept {
    switch (status) {
        case Status::ok:
        case Status::peer_closed:
        case Status::peer_aborted:
        case Status::peer_dead:
        case Status::corrupt:
        case Status::closed:
        case Status::forked: return true;
        default: return false;
    }
}

enum class SetupFailure : int {
    handshake = 0,    // no listener, refused, not ours, wrong user, …: error_number() may say more
    timed_out = 1,    // the caller's own timeout ran out
    interrupted = 2,  // the caller's Interrupt asked to stop
    capacity = 3,     // not a power of two within the bounds
    memory = 4,       // the memory for the segment cannot be had
};

class SetupError : public std::runtime_error {
  public:
    SetupError(SetupFailure failure, int error_number, const std::string& what)
        : std::runtime_error(what), failure_(failure), error_number_(error_number) {}
    [[nodiscard]] SetupFailure failure() const noexcept { return failure_; }
    [[nodiscard]] int error_number() const noexcept { return error_number_; }  // 0 where no errno is behind it

  private:
    SetupFailure failure_;
    int error_number_;
};

[[noreturn]] void fail_handshake(int error_number, const std::string& what);
// The handshake fails for want of a descriptor; `doing` is what could not be done.
[[noreturn]] void fail_descriptor(int error_number, const std::string& doing);
[[noreturn]] void fail_memory(int error_number, std::uint64_t bytes, const std::string& doing);
[[noreturn]] void fail_out_of_memory();

// Set-up throws SetupError and nothing else: that this process has no memory for its own records is said like everything else.
template <class Call>
auto set_up(Call call) -> decltype(call()) {
    try {
        return call();
    } catch (const std::bad_alloc&) {
        fail_out_of_memory();
    }
}

}  // namespace tachyon
