// Purpose: members for a wait set.
// Threads: as WaitSet.
#pragma once

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/wait_set.hpp"

namespace tachyon::test {

inline constexpr std::uint64_t kCapacity = 4096;

// A bus with its roles decided: we consume, the peer produces.
struct Line {
    explicit Line(Barrier barrier = Barrier::locked) : pair(make_pair(kCapacity, barrier)) {
        std::uint64_t message = 0;
        REQUIRE(theirs().try_send(&message, sizeof message, 0) == Status::ok);
        take();
    }
    Bus& ours() { return *pair.first; }
    Bus& theirs() { return *pair.second; }
    void put(std::uint64_t message = 1) { REQUIRE(theirs().try_send(&message, sizeof message, 0) == Status::ok); }
    void take() {
        Frame frame{};
        REQUIRE(ours().try_peek(frame) == Status::ok);
        REQUIRE(ours().release(frame) == Status::ok);
    }
    BusPair pair;
};

// Until it says ok, or for as long as a test may take.
inline Status wait_for(WaitSet& set, WaitSet::Token& token, std::uint64_t patience_ms = 30'000) {
    const std::uint64_t until = in_ms(patience_ms);
    for (;;) {
        const Status status = set.wait(until, token);
        if (status == Status::ok || now_ns() >= until) return status;
    }
}

}  // namespace tachyon::test
