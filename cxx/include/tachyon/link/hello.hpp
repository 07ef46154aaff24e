// Purpose: every byte that listener and connector say to each other on the socket, with its size and offset: what is offered, and
//   what may come of it. What stands in the segments is an arrangement's business, such as ring/layout.hpp.
// Threads: constants and plain structs. Lifetime, ordering: none. docs/protocol.md is this file in prose.
//
// Whoever changes a size, an offset or a meaning raises kHelloVersion; hello_hash() changes by itself with every field. A later
// version that still understands an older one appends: what that one has stays where it is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "tachyon/shm/access.hpp"

namespace tachyon {

inline constexpr std::uint16_t kHelloVersion = 3;
inline constexpr std::uint16_t kOldestHello = 3;  // that this side still understands

inline constexpr std::string_view kHelloMagic{"TACHYON\x1a", 8};
inline constexpr std::uint32_t kByteOrder = 0x01020304u;
inline constexpr std::size_t kMaxSegments = 8;
inline constexpr std::size_t kMaxHello = 4096;  // bytes, with a later version's fields and the schema
inline constexpr std::string_view kConnectorName{"\0tachyon-1-", 11};  // begins the abstract address of who connects
inline constexpr char kReady = 'R';
inline constexpr char kKnock = 'B';   // to a peer that is parked on its socket
inline constexpr char kPassed = 'M';  // comes with the descriptor of a parcel

// This process is registered for MEMBARRIER_CMD_GLOBAL_EXPEDITED.
inline constexpr std::uint32_t kAbilityMembarrier = 1;
// Bits 8 … 13: takes parcels, messages that do not fit the ring, of up to 2^n bytes in all at a time. 0: none, which is what a peer
// says that does not know of them. Neither these bits nor kPassed are in the hash: nobody meets them without having said so.
inline constexpr unsigned kAbilityParcels = 8;
inline constexpr std::uint32_t kMostParcelsAbility = 0x3f;

// What the segments are for. Others may follow, with arrangements of their own.
enum class Kind : std::uint16_t { bus = 1, rpc = 2 };

enum class Verdict : std::uint32_t {
    accepted = 0,
    wrong_version = 1,
    wrong_layout = 2,
    wrong_kind = 3,
    wrong_user = 4
};

struct SegmentOffer {
    std::uint64_t bytes;     // of the whole
    std::uint64_t capacity;  // bytes of what its arrangement holds
    std::uint32_t access;    // of who takes it: an Access
    std::uint32_t reserved;  // 0
    friend bool operator==(const SegmentOffer&, const SegmentOffer&) = default;
};

// Both sides send one, the connector first. Descriptors of the segments ride on the listener's, if its verdict is accepted.
struct Hello {
    // In every version the same, at the same place: by these a side tells whether it understands the rest.
    char magic[8];
    std::uint32_t byte_order;
    std::uint16_t version;     // the newest that its sender speaks
    std::uint16_t oldest;      // and the oldest that it still understands
    std::uint32_t bytes;       // of this hello, with what a later version appends and the schema, which ends it
    std::uint32_t hello_hash;  // of `oldest`

    std::uint16_t kind;
    std::uint16_t arrangement;       // version of what the segments hold
    std::uint32_t arrangement_hash;  // over the places of what they hold
    std::uint32_t abilities;
    std::uint32_t verdict;       // listener only
    std::uint32_t segments;      // listener only: how many descriptors
    std::uint32_t schema_bytes;  // what is said of the contents, in the kind's own way; no kind says anything today
    SegmentOffer offers[kMaxSegments];  // listener only; those beyond `segments` are 0
};

inline constexpr std::size_t kHelloPrefix = offsetof(Hello, kind);
inline constexpr std::size_t kMaxSchema = kMaxHello - sizeof(Hello);

static_assert(offsetof(SegmentOffer, bytes) == 0);
static_assert(offsetof(SegmentOffer, capacity) == 8);
static_assert(offsetof(SegmentOffer, access) == 16);
static_assert(offsetof(SegmentOffer, reserved) == 20);
static_assert(sizeof(SegmentOffer) == 24);
static_assert(offsetof(Hello, magic) == 0);
static_assert(offsetof(Hello, byte_order) == 8);
static_assert(offsetof(Hello, version) == 12);
static_assert(offsetof(Hello, oldest) == 14);
static_assert(offsetof(Hello, bytes) == 16);
static_assert(offsetof(Hello, hello_hash) == 20);
static_assert(offsetof(Hello, kind) == 24);
static_assert(offsetof(Hello, arrangement) == 26);
static_assert(offsetof(Hello, arrangement_hash) == 28);
static_assert(offsetof(Hello, abilities) == 32);
static_assert(offsetof(Hello, verdict) == 36);
static_assert(offsetof(Hello, segments) == 40);
static_assert(offsetof(Hello, schema_bytes) == 44);
static_assert(offsetof(Hello, offers) == 48);
static_assert(sizeof(Hello) == 240);
static_assert(kHelloPrefix == 24);
// No byte of it is nobody's: padding would be what a stack held before.
static_assert(std::has_unique_object_representations_v<Hello>);

// ---- the hash ------------------------------------------------------------------------------------------------------------

struct HelloField {
    std::uint64_t offset, size;
};
#define TACHYON_FIELD(structure, name) \
    HelloField { offsetof(structure, name), sizeof(structure::name) }
// In this order, wherever they stand.
inline constexpr std::array kHelloFields{
    TACHYON_FIELD(Hello, magic),        TACHYON_FIELD(Hello, byte_order),  TACHYON_FIELD(Hello, version),
    TACHYON_FIELD(Hello, oldest),       TACHYON_FIELD(Hello, bytes),       TACHYON_FIELD(Hello, hello_hash),
    TACHYON_FIELD(Hello, kind),         TACHYON_FIELD(Hello, arrangement), TACHYON_FIELD(Hello, arrangement_hash),
    TACHYON_FIELD(Hello, abilities),    TACHYON_FIELD(Hello, verdict),     TACHYON_FIELD(Hello, segments),
    TACHYON_FIELD(Hello, schema_bytes), TACHYON_FIELD(Hello, offers)};
inline constexpr std::array kOfferFields{TACHYON_FIELD(SegmentOffer, bytes), TACHYON_FIELD(SegmentOffer, capacity),
                                         TACHYON_FIELD(SegmentOffer, access), TACHYON_FIELD(SegmentOffer, reserved)};
#undef TACHYON_FIELD

// And what the bytes mean.
inline constexpr std::array kHelloValues{
    std::uint64_t{kOldestHello},
    std::uint64_t{kByteOrder},
    std::uint64_t{kMaxSegments},
    std::uint64_t{kMaxHello},
    std::uint64_t{kReady},
    std::uint64_t{kKnock},
    std::uint64_t{kAbilityMembarrier},
    static_cast<std::uint64_t>(Kind::bus),
    static_cast<std::uint64_t>(Kind::rpc),
    static_cast<std::uint64_t>(Verdict::accepted),
    static_cast<std::uint64_t>(Verdict::wrong_version),
    static_cast<std::uint64_t>(Verdict::wrong_layout),
    static_cast<std::uint64_t>(Verdict::wrong_kind),
    static_cast<std::uint64_t>(Verdict::wrong_user),
    static_cast<std::uint64_t>(Access::read_only),
    static_cast<std::uint64_t>(Access::read_write),
};

// FNV-1a.
constexpr std::uint32_t hash_hello(std::span<const HelloField> hello, std::span<const HelloField> offer,
                                   std::span<const std::uint64_t> values) noexcept {
    std::uint32_t hash = 2166136261u;
    const auto mix = [&hash](std::uint64_t value) {
        for (int byte = 0; byte < 8; ++byte) {
            hash = (hash ^ static_cast<std::uint32_t>(value >> (8 * byte) & 0xff)) * 16777619u;
        }
    };
    for (const auto fields : {hello, offer}) {
        for (const HelloField& field : fields) {
            mix(field.offset);
            mix(field.size);
        }
    }
    for (const std::uint64_t value : values) mix(value);
    return hash;
}

// Two peers whose hashes differ refuse each other.
constexpr std::uint32_t hello_hash() noexcept { return hash_hello(kHelloFields, kOfferFields, kHelloValues); }

}  // namespace tachyon
