// Purpose: what a consumer has let go of before older frames: remembered, merged with its neighbours, and freed when the turn comes.
// Threads: as the Consumer. Lifetime: none of its own; every call is told the same Consumer.
// Ordering: the ring's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tachyon/error.hpp"
#include "tachyon/ring/ring.hpp"

namespace tachyon {

class EarlyReleases {
  public:
    [[nodiscard]] bool empty() const noexcept { return runs_.empty(); }
    // So many frames will be held at a time: room to remember those that are released before their turn. False: no memory.
    [[nodiscard]] bool expect(std::size_t count) noexcept { return count <= runs_.capacity() || make_room(count); }
    // Any frame that is held, the oldest too: with that one everything behind it that was released before. no_claim: it is not
    // held. claim_open: no memory to remember it, unless expect() had seen to that.
    [[nodiscard]] Status release(Consumer& consumer, const Frame& frame) noexcept;

  private:
    struct Run {
        std::uint64_t position, end, frames;
    };

    [[nodiscard]] bool make_room(std::size_t count) noexcept;
    [[nodiscard]] Status remember(Consumer& consumer, const Frame& frame) noexcept;

    std::vector<Run> runs_;  // in the order of the ring; no two of them touch
};

}  // namespace tachyon
