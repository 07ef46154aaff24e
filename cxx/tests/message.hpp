// Purpose: messages that betray every mistake of a ring: the sequence number decides the content, and every payload word looks
//   like the commit word of a message that could come next, so that a stale line taken for a header is a wrong message.
// Threads: none; values only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "support.hpp"
#include "tachyon/ring/ring.hpp"

namespace tachyon::test {

inline std::uint64_t word_of(std::uint64_t sequence, std::uint64_t i) {
    return commit_word(static_cast<std::uint32_t>((sequence * 0x9E3779B1u + i * 7) & 63),
                       static_cast<std::uint32_t>(sequence));
}

// Fills all `claimed` bytes of ring behind the header, of which the first `size` are the message.
inline void write_message(std::uint8_t* payload, std::uint64_t size, std::uint64_t claimed, std::uint64_t sequence) {
    for (std::uint64_t i = 0; i < claimed; i += 8) {
        const std::uint64_t word = word_of(sequence, i / 8);
        std::memcpy(payload + i, &word, std::min<std::uint64_t>(8, claimed - i));
    }
    // The end differs from a cut-off word, so that a wrong size shows.
    if (size > 0) payload[size - 1] = static_cast<std::uint8_t>(sequence * 31 + size);
}

// nullptr, or what is wrong with it.
inline const char* check_message(const Frame& frame, std::uint64_t sequence) {
    if (frame.correlation_id != sequence) return "correlation_id";
    if (frame.type_id != static_cast<std::uint32_t>(sequence)) return "type_id";
    if (frame.size > 0 && frame.payload[frame.size - 1] != static_cast<std::uint8_t>(sequence * 31 + frame.size))
        return "last byte";
    for (std::uint64_t i = 0; i + 8 < frame.size; i += 8) {
        const std::uint64_t expected = word_of(sequence, i / 8);
        if (std::memcmp(frame.payload + i, &expected, 8) != 0) return "payload";
    }
    return nullptr;
}

// The largest, around half of the ring, anything, small, one line.
inline std::uint32_t pick_size(Random& random, std::uint64_t max) {
    std::uint64_t size = 0;
    switch (random.below(10)) {
        case 0: size = max - random.below(2); break;
        case 1: size = random.below(max + 1); break;
        case 2: size = std::min(max, max / 2 + random.below(130) - std::min<std::uint64_t>(max / 2, 64)); break;
        case 3:
        case 4: size = random.below(max / 8 + 1); break;
        default: size = random.below(std::min<std::uint64_t>(max, 200) + 1); break;
    }
    return static_cast<std::uint32_t>(size);
}

}  // namespace tachyon::test
