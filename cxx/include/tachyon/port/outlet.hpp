// Purpose: one way to send. A Bus, a batch of messages, a call and a reply are outlets: each says how one message is tried;
//   the forms that wait, and the RAII claim, are here once for all of them.
// Threads: one at a time, as the bus behind it.
// Lifetime: an outlet must not outlive what it sends through; a Claim must not outlive its outlet.
// Ordering: the ring's.
//
// Statuses of all: ok, too_large, wrong_side, claim_open, peer_closed, peer_aborted, peer_dead, corrupt, closed, forked; no_memory of
// what does not fit the ring. The tries also full; the waiting forms full when the time is over, and interrupted. The commit of what
// does not fit the ring also full, where the kernel passes no descriptor now: the claim stays open, but its bytes are final; commit
// again later, with the same size, or give it up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "tachyon/error.hpp"
#include "tachyon/port/waiting.hpp"

namespace tachyon {

inline constexpr std::uint64_t kLargeCopy = 1 << 16;  // bytes; from here on a host is unlocked during the copy

class Outlet;

// Room for one message: written to, then committed. What is not committed is given back.
class Claim {
  public:
    Claim(Outlet* outlet, Status status, std::uint8_t* payload, std::uint64_t size) noexcept
        : outlet_(status == Status::ok ? outlet : nullptr), status_(status), payload_(payload), size_(size) {}
    Claim(Claim&& other) noexcept
        : outlet_(std::exchange(other.outlet_, nullptr)),
          status_(other.status_),
          payload_(other.payload_),
          size_(other.size_) {}
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    Claim& operator=(Claim&&) = delete;
    inline ~Claim();

    explicit operator bool() const noexcept { return outlet_ != nullptr; }
    [[nodiscard]] Status status() const noexcept { return status_; }  // why there is none
    [[nodiscard]] std::span<std::byte> data() const noexcept {
        return {reinterpret_cast<std::byte*>(payload_), outlet_ != nullptr ? static_cast<std::size_t>(size_) : 0};
    }
    // Sends the first `size` bytes, by default all.
    [[nodiscard]] inline Status commit(std::uint32_t type_id = 0);
    [[nodiscard]] inline Status commit(std::uint32_t type_id, std::uint32_t size);

  private:
    Outlet* outlet_;
    Status status_;
    std::uint8_t* payload_;
    std::uint64_t size_;
};

class Outlet {
  public:
    Outlet(const Outlet&) = delete;
    Outlet& operator=(const Outlet&) = delete;

    // ok: the message is visible to the peer.
    [[nodiscard]] virtual Status try_send(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept = 0;
    // Room at `payload`, one claim at a time; then commit, or abort.
    [[nodiscard]] virtual Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept = 0;
    [[nodiscard]] virtual Status commit(std::uint32_t size, std::uint32_t type_id) noexcept = 0;
    [[nodiscard]] virtual Status abort() noexcept = 0;
    // Does a message of this size go in memory of its own, which takes long to make? Then a host is unlocked for the tries.
    [[nodiscard]] virtual bool is_parcel(std::uint64_t size) const noexcept = 0;

    // Waits while there is no room.
    [[nodiscard]] Status send(const void* data, std::uint64_t size, std::uint32_t type_id, const Waiting& waiting);
    [[nodiscard]] Status send(std::span<const std::byte> data, std::uint32_t type_id = 0, const Waiting& waiting = {}) {
        return send(data.data(), data.size(), type_id, waiting);
    }
    // The same of a message in two parts, the second behind the first.
    [[nodiscard]] Status send(std::span<const std::byte> head, std::span<const std::byte> data, std::uint32_t type_id,
                              const Waiting& waiting);
    [[nodiscard]] Status claim(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting);
    [[nodiscard]] Claim claim(std::uint64_t size, const Waiting& waiting = {}) {
        std::uint8_t* payload = nullptr;
        const Status status = claim(size, payload, waiting);
        return {this, status, payload, size};
    }

  protected:
    Outlet() = default;
    ~Outlet() = default;

    // For a wait for room: see detail::persist.
    [[nodiscard]] virtual bool look_for_room(std::uint64_t size, std::uint64_t looks) noexcept = 0;
    [[nodiscard]] virtual std::uint64_t prepare_for_room(std::uint64_t until) noexcept { return until; }
    [[nodiscard]] virtual Status sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept = 0;

  private:
    template <class Attempt>
    Status wait_for_room(std::uint64_t size, const Waiting& waiting, Attempt attempt);
};

inline Claim::~Claim() {
    if (outlet_ != nullptr) (void)outlet_->abort();
}

inline Status Claim::commit(std::uint32_t type_id) { return commit(type_id, static_cast<std::uint32_t>(size_)); }

inline Status Claim::commit(std::uint32_t type_id, std::uint32_t size) {
    if (outlet_ == nullptr) return status_ == Status::ok ? Status::no_claim : status_;
    const Status status = outlet_->commit(size, type_id);
    if (ends_hold(status)) outlet_ = nullptr;  // a size beyond the claim, for one, leaves it open
    return status;
}

}  // namespace tachyon
