// Purpose: what comes over the socket of a connection once it stands: knocks, which are heard and forgotten, and the descriptors of
//   parcels, which are kept in the order in which they came until the ring announces them.
// Threads: any; who waits for many rings at once may hear beside who receives. Lifetime: what it keeps is closed with it.
// Ordering: none; a descriptor is on the socket before its announcement is committed.
#pragma once

#include <array>
#include <cstddef>
#include <mutex>

#include "tachyon/error.hpp"
#include "tachyon/link/descriptor.hpp"

namespace tachyon {

// So many parcels are under way to one side at a time. A peer that sends more has gone wrong.
inline constexpr std::size_t kMostParcels = 16;

class Inbox {
  public:
    // Takes out all that is there, so that the socket is no longer readable. Never waits. True if there was anything.
    bool hear(int socket) noexcept;
    // The oldest descriptor: ok; empty: none has come; no_memory: it has, but this process has no number free for it; corrupt: what
    // came is more than there may be. It stays the oldest until it is dropped.
    [[nodiscard]] Status first(int socket, int& descriptor) noexcept;
    void drop_first() noexcept;
    // In a forked child: what it has is the parent's.
    void abandon() noexcept;

  private:
    // One step: false when there is nothing more to be had now.
    [[nodiscard]] bool take_some(int socket) noexcept;
    void refuse() noexcept;

    std::mutex mutex_;
    std::array<Descriptor, kMostParcels> kept_;
    std::size_t oldest_ = 0;
    std::size_t count_ = 0;
    bool misbehaved_ = false;
    bool starved_ = false;  // the last look found something that it had no number for
};

}  // namespace tachyon
