// Purpose: handles to test: both ends of a bus, and everything that free code may call.
// Threads: as BusHandle.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/host/bus_handle.hpp"

namespace tachyon::test {

using namespace std::chrono_literals;

// A bus with a handle at each end.
struct Handles {
    explicit Handles(std::uint64_t capacity = 4096, Barrier barrier = Barrier::locked) {
        BusPair pair = make_pair(capacity, barrier);
        producer = std::make_unique<BusHandle>(std::move(pair.first), "here");
        consumer = std::make_unique<BusHandle>(std::move(pair.second), "here");
    }
    void send(std::string_view text) const { REQUIRE(producer->try_send(text.data(), text.size(), 1) == Status::ok); }
    std::unique_ptr<BusHandle> producer, consumer;
};

inline std::string_view text_of(const Frame& frame) {
    return {reinterpret_cast<const char*>(frame.payload), frame.size};
}

// Every method of free code that may be refused, by what it returns.
inline std::vector<Status> each_method(BusHandle& handle) {
    std::uint8_t* payload = nullptr;
    Frame frame{};
    std::size_t count = 0;
    return {handle.try_claim(1, payload),
            handle.claim(1, payload, 0ms),
            handle.commit(1, 0),
            handle.abort(),
            handle.try_send("x", 1, 0),
            handle.send("x", 1, 0, 0ms),
            handle.try_peek(frame),
            handle.peek(frame, 0ms),
            handle.try_drain(&frame, 1, count),
            handle.drain(&frame, 1, count, 0ms),
            handle.release(frame),
            handle.release_all(&frame, 1),
            handle.wait_writable(1, 0),
            handle.wait_readable(0),
            handle.check()};
}

inline bool all_are(const std::vector<Status>& statuses, Status status) {
    for (const Status each : statuses) {
        if (each != status) {
            UNSCOPED_INFO(each);
            return false;
        }
    }
    return true;
}

}  // namespace tachyon::test
