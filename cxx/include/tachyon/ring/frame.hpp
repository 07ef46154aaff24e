// Purpose: what the two ends of a ring share: the memory, a message in place, and the words that begin its lines.
// Threads: values only. Lifetime: the segment must stay mapped while anything here is used.
// Ordering: none here; ring.hpp states it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "tachyon/ring/layout.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// A mapped segment as the ring sees it. The capacity comes from the handshake, never from shared memory.
struct RingMemory {
    SegmentHeader* header = nullptr;
    std::uint8_t* data = nullptr;
    std::uint64_t capacity = 0;
    Barrier barrier = Barrier::locked;
    Doorbell doorbell{};
    std::uint64_t bulk = kBulk;  // the same on both sides; tests make it small
};

// A message in place. Every field is a private copy, checked: the peer cannot change it any more.
struct Frame {
    const std::uint8_t* payload;
    std::uint64_t position;  // of its first line
    std::uint64_t correlation_id;
    std::uint32_t size;
    std::uint32_t type_id;
};

namespace detail {

// FNV-1a, going on from `hash`.
constexpr std::uint64_t mix(std::uint64_t hash, std::initializer_list<std::uint64_t> values) noexcept {
    for (const std::uint64_t value : values) {
        for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (value >> (8 * byte) & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

inline std::atomic<std::uint64_t>& word_at(std::uint8_t* line) noexcept {
    return *reinterpret_cast<std::atomic<std::uint64_t>*>(line);
}

// Relaxed: the caller's next release store publishes the clears.
inline void clear_lines(std::uint8_t* from, const std::uint8_t* to) noexcept {
    for (; from < to; from += kLine) word_at(from).store(0, std::memory_order_relaxed);
}

}  // namespace detail
}  // namespace tachyon
