// Purpose: what the handshake has to know of a kind's segments, and no more: it describes, makes, passes and checks them by this.
//   A new kind is one more Arrangement, and no new handshake.
// Threads: any; nothing here changes. Lifetime: static. Ordering: none.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tachyon/link/hello.hpp"
#include "tachyon/shm/segment.hpp"

namespace tachyon {

struct Arrangement {
    Kind kind;
    const char* name;       // of the class, for messages
    std::uint16_t version;  // of what the segments hold, and a hash over the places of it: both sides' must be the same
    std::uint32_t hash;
    std::size_t segments;    // how many there are
    std::size_t max_schema;  // bytes that may be said of the contents
    // Of each segment so many bytes at its beginning stay with a client that is dropped after the offer: one that is only slow reads
    // there what it was promised, and then finds the connection gone. The rest of the memory is taken back.
    std::uint64_t kept;

    // What a segment of this capacity has to be, as offered to the connector. SetupError (capacity): there is none.
    SegmentOffer (*describe)(std::size_t index, std::uint64_t capacity);
    // By the listener, of fresh memory; by the connector, of what it was passed: null, or why it is not what was offered.
    void (*arrange)(const Segment& segment, const SegmentOffer& offer) noexcept;
    const char* (*refusal)(const Segment& segment, const SegmentOffer& offer) noexcept;
};

const Arrangement& arrangement_of(Kind kind) noexcept;

}  // namespace tachyon
