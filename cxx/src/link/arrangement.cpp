// The kinds that there are. Nothing else in link/ knows what stands in a segment.
#include "tachyon/link/arrangement.hpp"

#include "tachyon/ring/ring_segment.hpp"

namespace tachyon {
namespace {

SegmentOffer describe_ring(std::size_t, std::uint64_t capacity) {
    check_capacity(capacity);
    return {ring_segment_bytes(capacity), capacity, static_cast<std::uint32_t>(Access::read_write), 0};
}

void make_ring(const Segment& segment, const SegmentOffer& offer) noexcept { arrange_ring(segment, offer.capacity); }

const char* check_ring(const Segment& segment, const SegmentOffer& offer) noexcept {
    return refusal_of_ring(segment, offer.capacity);
}

constexpr Arrangement rings(Kind kind, const char* name, std::size_t count) {
    return {.kind = kind,
            .name = name,
            .version = kProtocolVersion,
            .hash = layout_hash(),
            .segments = count,
            .max_schema = 0,
            .kept = kHeaderBytes,
            .describe = describe_ring,
            .arrange = make_ring,
            .refusal = check_ring};
}

constexpr Arrangement kBus = rings(Kind::bus, "Bus", 1);
constexpr Arrangement kRpc = rings(Kind::rpc, "RpcBus", 2);  // calls, replies

}  // namespace

const Arrangement& arrangement_of(Kind kind) noexcept { return kind == Kind::rpc ? kRpc : kBus; }

}  // namespace tachyon
