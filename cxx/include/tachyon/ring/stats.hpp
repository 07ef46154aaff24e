// Purpose: what a side of a bus can tell of itself. Threads: values only. Lifetime, ordering: none.
#pragma once

#include <cstdint>

#include "tachyon/ring/layout.hpp"

namespace tachyon {

struct Stats {
    Side side = Side::undecided;  // this one
    Side producer = Side::undecided;
    std::uint64_t messages = 0;        // committed, or freed, by this side
    std::uint64_t position = 0;        // bytes of ring committed, or freed, by this side
    std::uint64_t parks = 0;           // times this side went to sleep, or was about to
    std::uint64_t wakes = 0;           // times this side woke the peer
    std::uint64_t spin_budget_ns = 0;  // current length of the spin before a park
};

}  // namespace tachyon
