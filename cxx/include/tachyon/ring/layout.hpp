// Purpose: every byte that two processes share in a segment, with its size and offset.
// Threads: constants and plain structs. Lifetime: a SegmentHeader lives exactly as long as the mapping it stands in.
// Ordering: none here; ring.hpp and wait.hpp state theirs. docs/protocol.md is this file in prose.
//
// Whoever changes a size, an offset or a meaning raises kProtocolVersion. layout_hash() changes by itself with most of
// them, and two peers whose hashes differ refuse each other in the handshake.
#pragma once

#if __cplusplus < 202002L
#error "tachyon needs C++20: compile with -std=c++20 or later"
#endif

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tachyon {

inline constexpr std::uint16_t kProtocolVersion = 3;

// ---- the ring's data -------------------------------------------------------------------------------------------------

inline constexpr std::uint64_t kLine = 64;         // every frame starts on, and fills, whole lines
inline constexpr std::uint64_t kFrameHeader = 16;  // commit word, correlation_id
inline constexpr std::uint64_t kOneLinePayload = kLine - kFrameHeader;
// A frame of at least so many bytes of ring is bulk: the consumer clears its first word alone, not that of every line of it.
inline constexpr std::uint64_t kBulk = 4096;
inline constexpr std::uint64_t kMinCapacity = kLine;
inline constexpr std::uint64_t kMaxCapacity = std::uint64_t{1}
                                              << 32;  // a size must fit the commit word beside kPadding

// Low half of the commit word: size + 1, or one of these.
inline constexpr std::uint32_t kPadding = 0xffffffffu;
// A line that announces a parcel: a message that does not fit the ring and comes in memory of its own. Its payload is the size,
// eight bytes. As a size it would be beyond any ring. Not in layout_hash(): nobody sends it to a peer that has not asked for it.
inline constexpr std::uint32_t kParcel = 0xfffffffeu;

constexpr std::uint64_t commit_word(std::uint32_t size, std::uint32_t type_id) noexcept {
    return std::uint64_t{type_id} << 32 | (size + 1u);
}
constexpr std::uint64_t parcel_word(std::uint32_t type_id) noexcept { return std::uint64_t{type_id} << 32 | kParcel; }
constexpr std::uint32_t low_half(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word); }
constexpr std::uint32_t high_half(std::uint64_t word) noexcept { return static_cast<std::uint32_t>(word >> 32); }

// Bytes of ring that a payload takes, header and padding to the line included.
constexpr std::uint64_t frame_size(std::uint64_t payload) noexcept {
    return (payload + kFrameHeader + kLine - 1) & ~(kLine - 1);
}
constexpr std::uint64_t max_message_size(std::uint64_t capacity) noexcept { return capacity - kFrameHeader; }
constexpr bool is_valid_capacity(std::uint64_t capacity) noexcept {
    return capacity >= kMinCapacity && capacity <= kMaxCapacity && (capacity & (capacity - 1)) == 0;
}

// ---- the segment: one header page, then the data -----------------------------------------------------------------------

inline constexpr std::uint64_t kHeaderBytes = 4096;
inline constexpr std::uint64_t kSegmentMagic = 0x31474553594843ull;  // "CHYSEG1"

// Who a side is: the one that listened or the one that connected. Either may turn out to be the producer.
enum class Side : std::uint32_t { undecided = 0, listener = 1, connector = 2 };
constexpr Side other_side(Side side) noexcept { return side == Side::listener ? Side::connector : Side::listener; }

// What a side says of its end. aborted: it left in the middle, and what it has sent is not the whole.
enum class End : std::uint32_t { open = 0, closed = 1, aborted = 2 };

// What a side tells of itself, for whoever watches: nobody in the bus reads it. Written beside what the side writes anyway, and
// seldom, so it may lag behind; each word by itself never goes back.
struct SideCounters {
    std::atomic<std::uint64_t> messages;   // committed, or freed
    std::atomic<std::uint64_t> waits;      // blocking calls that found nothing to do at first, counted once a slice
    std::atomic<std::uint64_t> parks;      // of those: went to sleep, or were about to
    std::atomic<std::uint64_t> wakes;      // of the other side
    std::atomic<std::uint64_t> active_ns;  // CLOCK_MONOTONIC, to a tick, when the others were written last
};

// Words written by different processes stand 128 bytes apart: prefetchers fetch lines in pairs.
struct SegmentHeader {
    // Written once by the creator before the descriptor is passed on; checked once by the peer; never read again.
    std::uint64_t magic;
    std::uint32_t version;
    std::uint32_t header_bytes;
    std::uint64_t capacity;

    // Bytes freed so far; written by the consumer, never decreases.
    alignas(128) std::atomic<std::uint64_t> read_position;
    SideCounters consumer;                                    // in the same line
    alignas(128) std::atomic<std::uint32_t> consumer_parked;  // 0, or how to wake who sleeps, or is about to: wait.hpp
    alignas(128) std::atomic<std::uint32_t> producer_parked;  // the same for a producer that waits for room
    alignas(128) std::atomic<std::uint32_t> producer_side;    // a Side; set once, by the first send
    std::atomic<std::uint32_t> listener_closed;               // an End; once it is not open, nothing more is committed
    std::atomic<std::uint32_t> connector_closed;

    // Bytes committed when the producer last told, for whoever watches. The consumer never looks here.
    alignas(128) std::atomic<std::uint64_t> write_position;
    SideCounters producer;  // in the same line
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free && sizeof(std::atomic<std::uint64_t>) == 8);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free && sizeof(std::atomic<std::uint32_t>) == 4);
static_assert(offsetof(SegmentHeader, magic) == 0);
static_assert(offsetof(SegmentHeader, version) == 8);
static_assert(offsetof(SegmentHeader, header_bytes) == 12);
static_assert(offsetof(SegmentHeader, capacity) == 16);
static_assert(offsetof(SegmentHeader, read_position) == 128);
static_assert(offsetof(SideCounters, messages) == 0);
static_assert(offsetof(SideCounters, waits) == 8);
static_assert(offsetof(SideCounters, parks) == 16);
static_assert(offsetof(SideCounters, wakes) == 24);
static_assert(offsetof(SideCounters, active_ns) == 32);
static_assert(sizeof(SideCounters) == 40);
static_assert(offsetof(SegmentHeader, consumer) == 136);
static_assert(offsetof(SegmentHeader, consumer_parked) == 256);
static_assert(offsetof(SegmentHeader, producer_parked) == 384);
static_assert(offsetof(SegmentHeader, producer_side) == 512);
static_assert(offsetof(SegmentHeader, listener_closed) == 516);
static_assert(offsetof(SegmentHeader, connector_closed) == 520);
static_assert(offsetof(SegmentHeader, write_position) == 640);
static_assert(offsetof(SegmentHeader, producer) == 648);
static_assert(sizeof(SegmentHeader) == 768 && sizeof(SegmentHeader) <= kHeaderBytes);

// FNV-1a over everything above that a peer must agree with.
constexpr std::uint32_t layout_hash() noexcept {
    std::uint32_t hash = 2166136261u;
    for (const std::uint64_t value : {std::uint64_t{kProtocolVersion},
                                      kLine,
                                      kFrameHeader,
                                      kBulk,
                                      kMinCapacity,
                                      kMaxCapacity,
                                      std::uint64_t{kPadding},
                                      commit_word(1, 2),
                                      kHeaderBytes,
                                      kSegmentMagic,
                                      std::uint64_t{static_cast<std::uint32_t>(Side::listener)},
                                      std::uint64_t{static_cast<std::uint32_t>(Side::connector)},
                                      std::uint64_t{static_cast<std::uint32_t>(End::closed)},
                                      std::uint64_t{static_cast<std::uint32_t>(End::aborted)},
                                      std::uint64_t{sizeof(SegmentHeader)},
                                      std::uint64_t{offsetof(SegmentHeader, magic)},
                                      std::uint64_t{offsetof(SegmentHeader, version)},
                                      std::uint64_t{offsetof(SegmentHeader, header_bytes)},
                                      std::uint64_t{offsetof(SegmentHeader, capacity)},
                                      std::uint64_t{offsetof(SegmentHeader, read_position)},
                                      std::uint64_t{offsetof(SegmentHeader, consumer)},
                                      std::uint64_t{offsetof(SegmentHeader, consumer_parked)},
                                      std::uint64_t{offsetof(SegmentHeader, producer_parked)},
                                      std::uint64_t{offsetof(SegmentHeader, producer_side)},
                                      std::uint64_t{offsetof(SegmentHeader, listener_closed)},
                                      std::uint64_t{offsetof(SegmentHeader, connector_closed)},
                                      std::uint64_t{offsetof(SegmentHeader, write_position)},
                                      std::uint64_t{offsetof(SegmentHeader, producer)},
                                      std::uint64_t{sizeof(SideCounters)},
                                      std::uint64_t{offsetof(SideCounters, messages)},
                                      std::uint64_t{offsetof(SideCounters, waits)},
                                      std::uint64_t{offsetof(SideCounters, parks)},
                                      std::uint64_t{offsetof(SideCounters, wakes)},
                                      std::uint64_t{offsetof(SideCounters, active_ns)}}) {
        for (int byte = 0; byte < 8; ++byte) {
            hash = (hash ^ static_cast<std::uint32_t>(value >> (8 * byte) & 0xff)) * 16777619u;
        }
    }
    return hash;
}

}  // namespace tachyon
