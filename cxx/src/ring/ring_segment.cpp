#include "tachyon/ring/ring_segment.hpp"

#include <cerrno>
#include <new>
#include <string>

#include "tachyon/error.hpp"

namespace tachyon {

void check_capacity(std::uint64_t capacity) {
    if (is_valid_capacity(capacity)) return;
    throw SetupError(SetupFailure::capacity, EINVAL,
                     "capacity must be a power of two between " + std::to_string(kMinCapacity) + " and " +
                         std::to_string(kMaxCapacity) + " bytes, not " + std::to_string(capacity));
}

void arrange_ring(const Segment& segment, std::uint64_t capacity) noexcept {
    auto* const header = new (segment.memory()) SegmentHeader{};
    header->magic = kSegmentMagic;
    header->version = kProtocolVersion;
    header->header_bytes = kHeaderBytes;
    header->capacity = capacity;
}

const char* refusal_of_ring(const Segment& segment, std::uint64_t capacity) noexcept {
    const SegmentHeader* const header = header_of(segment);
    const bool as_said = header->magic == kSegmentMagic && header->version == kProtocolVersion &&
                         header->header_bytes == kHeaderBytes && header->capacity == capacity;
    return as_said ? nullptr : "its header page does not say what the handshake said";
}

RingSegment RingSegment::create(std::uint64_t capacity, const Patience& patience) {
    check_capacity(capacity);
    Segment segment = Segment::create(ring_segment_bytes(capacity), patience);
    arrange_ring(segment, capacity);
    return RingSegment(std::move(segment));
}

RingSegment RingSegment::attach(Descriptor descriptor, std::uint64_t capacity, const Patience& patience) {
    if (!is_valid_capacity(capacity)) refuse_segment("capacity " + std::to_string(capacity));
    Segment segment = Segment::attach(std::move(descriptor), ring_segment_bytes(capacity), Access::read_write);
    if (const char* const why = refusal_of_ring(segment, capacity); why != nullptr) refuse_segment(why);
    segment.populate(patience);
    return RingSegment(std::move(segment));
}

}  // namespace tachyon
