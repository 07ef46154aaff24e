// Purpose: a segment arranged for one ring: a header page, then the data. Made by one side, checked by the other.
// Threads: create, attach, move and destroy from one thread at a time. The memory itself is the ring's business.
// Lifetime: as the segment's: a Producer or Consumer must not outlive it.
// Ordering: none; the header page is written before the descriptor leaves the process.
#pragma once

#include <cstdint>
#include <utility>

#include "tachyon/ring/layout.hpp"
#include "tachyon/ring/ring.hpp"
#include "tachyon/shm/segment.hpp"

namespace tachyon {

// Throws SetupError (capacity), naming the value and the bounds.
void check_capacity(std::uint64_t capacity);

constexpr std::uint64_t ring_segment_bytes(std::uint64_t capacity) noexcept { return kHeaderBytes + capacity; }

// Makes an empty ring of fresh memory, all 0.
void arrange_ring(const Segment& segment, std::uint64_t capacity) noexcept;
// Why what a peer made is no ring of this capacity; null if it is one.
const char* refusal_of_ring(const Segment& segment, std::uint64_t capacity) noexcept;

inline SegmentHeader* header_of(const Segment& segment) noexcept {
    return static_cast<SegmentHeader*>(segment.memory());
}

class RingSegment {
  public:
    RingSegment() noexcept = default;
    // Of one that has been arranged or checked already, as the handshake does.
    explicit RingSegment(Segment segment) noexcept : segment_(std::move(segment)) {}

    // SetupError: capacity, and as Segment::create.
    static RingSegment create(std::uint64_t capacity, const Patience& patience = {});
    // The header page is checked too, before the rest is mapped. SetupError: as Segment::attach and populate.
    static RingSegment attach(Descriptor descriptor, std::uint64_t capacity, const Patience& patience = {});

    [[nodiscard]] std::uint64_t capacity() const noexcept {
        return header() == nullptr ? 0 : segment_.bytes() - kHeaderBytes;
    }
    [[nodiscard]] SegmentHeader* header() const noexcept { return header_of(segment_); }
    [[nodiscard]] RingMemory ring(Barrier barrier, Doorbell doorbell = {}) const noexcept {
        return {header(), static_cast<std::uint8_t*>(segment_.memory()) + kHeaderBytes, capacity(), barrier, doorbell};
    }

    [[nodiscard]] int descriptor() const noexcept { return segment_.descriptor(); }
    void close_descriptor() noexcept { segment_.close_descriptor(); }
    [[nodiscard]] int bind_to_node(unsigned node) const noexcept { return segment_.bind_to_node(node); }

  private:
    Segment segment_;
};

}  // namespace tachyon
