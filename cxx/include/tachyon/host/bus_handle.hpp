// Purpose: a Bus behind a Gate, as a host hands it out: what locked users do with it, and the whole of what free code may call.
// Threads: see gate.hpp. Lifetime: the bus goes with the handle, or before: once it is closed, and no guard is open. Who holds
//   the lock, or is inside, may look at it; nobody else.
// Ordering: the gate's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "tachyon/bus.hpp"
#include "tachyon/host/gate.hpp"
#include "tachyon/link/fork.hpp"

namespace tachyon {

class BusHandle {
  public:
    // Without a bus: of something that was never opened. Closed, then.
    BusHandle(std::unique_ptr<Bus> bus, std::string path);

    // For a host's object that was made without being opened: it is closed.
    static BusHandle* never_opened() noexcept;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] std::uint64_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] std::uint64_t max_large_size() const noexcept { return max_large_size_; }
    [[nodiscard]] pid_t peer_pid() const noexcept { return peer_pid_; }
    // Null once it is closed and nobody holds any of its memory.
    [[nodiscard]] Bus* bus() const noexcept { return bus_.get(); }
    [[nodiscard]] Gate& gate() noexcept { return gate_; }
    // ok while open, else closed or forked.
    [[nodiscard]] Status state() const noexcept;

    // ---- locked users ----

    [[nodiscard]] bool enter() noexcept { return bus_ != nullptr && gate_.enter_locked(); }
    void leave() noexcept {
        if (gate_.leave()) [[unlikely]]
            finish_close();
    }
    // Why not, also to free code: closed, forked, claim_open (a guard of a locked user is open), busy (the rest).
    [[nodiscard]] Status why_not_entered() const noexcept;
    void open_guard() noexcept { gate_.open_guard(); }
    void end_guard() noexcept;
    // Idempotent, never waits. Who is inside finishes the job.
    void close(End how) noexcept;
    [[nodiscard]] bool closing() const noexcept { return gate_.must_close(); }

    // The ring itself, to code that inlines it, until take_back(). claim_open: a guard is open.
    [[nodiscard]] Status lend(Producer*& producer) noexcept;
    [[nodiscard]] Status lend(Consumer*& consumer) noexcept;
    [[nodiscard]] Status take_back() noexcept;

    // ---- free code: as the methods of Bus, and busy, and claim_open while a guard is open ----

    [[nodiscard]] Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept;
    [[nodiscard]] Status claim(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting);
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t type_id) noexcept;
    [[nodiscard]] Status abort() noexcept;
    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept;
    [[nodiscard]] Status send(const void* data, std::uint64_t size, std::uint32_t type_id, const Waiting& waiting);
    [[nodiscard]] Status try_peek(Frame& frame) noexcept;
    [[nodiscard]] Status peek(Frame& frame, const Waiting& waiting);
    [[nodiscard]] Status try_drain(Frame* frames, std::size_t most, std::size_t& count) noexcept;
    [[nodiscard]] Status drain(Frame* frames, std::size_t most, std::size_t& count, const Waiting& waiting);
    // no_claim if it is not the oldest one held, or has been changed.
    [[nodiscard]] Status release(const Frame& frame) noexcept;
    // All of them, or up to the first that may not be; the producer is told at once.
    [[nodiscard]] Status release_all(const Frame* frames, std::size_t count) noexcept;
    // One wait, of at most a slice; for who has borrowed the ring too. As Bus::wait_writable and wait_readable, and check first.
    [[nodiscard]] Status wait_writable(std::uint64_t size, std::uint64_t until) noexcept;
    [[nodiscard]] Status wait_readable(std::uint64_t until) noexcept;
    [[nodiscard]] Status check() noexcept;

  private:
    friend class RpcHandle;
    friend class FreeUse;

    [[nodiscard]] bool enter_free() noexcept;
    void leave_free() noexcept {
        if (gate_.leave()) [[unlikely]]
            close_freely();
    }
    void close_freely() noexcept;
    void close_bus() noexcept;
    void finish_close() noexcept;
    // After commit, abort or release said so, there is nothing left to give back.
    void let_go_after(Status status) noexcept {
        if (ends_hold(status) && gate_.held() != 0) gate_.let_go(1);
    }
    // What gives something back and is refused because it is over counts too, so that the memory can go.
    [[nodiscard]] Status let_go_refused(Status why, int count) noexcept;
    [[nodiscard]] bool lent_or_inside(bool inside) const noexcept { return inside || gate_.is_lent_here(); }
    template <class Lend>
    [[nodiscard]] Status lend_as(Gate::User user, Lend lend) noexcept;

    Gate gate_;
    const std::string path_;
    const std::uint64_t capacity_ = 0;
    const std::uint64_t max_large_size_ = 0;
    const pid_t peer_pid_ = 0;
    std::unique_ptr<Bus> bus_;
    std::atomic<bool> forked_{false};  // the bus knows too, but who is refused must not ask it
    ForkNode fork_node_{this, [](void* handle) noexcept {
                            static_cast<BusHandle*>(handle)->forked_.store(true, std::memory_order_relaxed);
                        }};
};

// Free code inside a handle, as long as this lives.
class FreeUse {
  public:
    explicit FreeUse(BusHandle& handle) noexcept : handle_(handle), inside_(handle.enter_free()) {}
    FreeUse(const FreeUse&) = delete;
    FreeUse& operator=(const FreeUse&) = delete;
    ~FreeUse() {
        if (inside_) handle_.leave_free();
    }
    explicit operator bool() const noexcept { return inside_; }

  private:
    BusHandle& handle_;
    const bool inside_;
};

// The part that matters for speed.

inline bool BusHandle::enter_free() noexcept {
    const Gate::Entry entry = gate_.enter_free();
    if (entry == Gate::Entry::must_close) [[unlikely]]
        close_freely();
    return entry == Gate::Entry::inside;
}

inline Status BusHandle::try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept {
    const FreeUse inside(*this);
    if (!inside) [[unlikely]]
        return why_not_entered();
    const Status status = bus_->try_claim(size, payload);
    if (status == Status::ok) gate_.hold(1);
    return status;
}

inline Status BusHandle::commit(std::uint32_t size, std::uint32_t type_id) noexcept {
    const FreeUse inside(*this);
    if (!inside) [[unlikely]]
        return let_go_refused(why_not_entered(), 1);
    const Status status = bus_->commit(size, type_id);
    let_go_after(status);
    return status;
}

inline Status BusHandle::try_send(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept {
    const FreeUse inside(*this);
    if (!inside) [[unlikely]]
        return why_not_entered();
    return bus_->try_send(data, size, type_id);
}

inline Status BusHandle::try_peek(Frame& frame) noexcept {
    const FreeUse inside(*this);
    if (!inside) [[unlikely]]
        return why_not_entered();
    const Status status = bus_->try_peek(frame);
    if (status == Status::ok) gate_.hold(1);
    return status;
}

inline Status BusHandle::release(const Frame& frame) noexcept {
    const FreeUse inside(*this);
    if (!inside) [[unlikely]]
        return let_go_refused(why_not_entered(), 1);
    const Status status = bus_->release_checked(frame);
    let_go_after(status);
    return status;
}

}  // namespace tachyon
