#include "tachyon/shm/segment.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <string>
#include <utility>

#include "port/memory.hpp"
#include "tachyon/error.hpp"

namespace tachyon {
namespace {

[[noreturn]] void refuse(const std::string& why) { fail_handshake(EPROTO, "the peer's segment was refused: " + why); }

}  // namespace

void check_capacity(std::uint64_t capacity) {
    if (is_valid_capacity(capacity)) return;
    throw SetupError(SetupFailure::capacity, EINVAL,
                     "capacity must be a power of two between " + std::to_string(kMinCapacity) + " and " +
                         std::to_string(kMaxCapacity) + " bytes, not " + std::to_string(capacity));
}

void Patience::check() const {
    if (interrupt()) throw SetupError(SetupFailure::interrupted, EINTR, "interrupted");
    if (now_ns() >= deadline) {
        throw SetupError(SetupFailure::timed_out, ETIMEDOUT, "the timeout ran out while " + doing);
    }
}

namespace {

constexpr std::uint64_t kPiece = 16 << 20;  // a hundredth of a second or so

// Calls each(begin, size) for one piece after another.
template <class Each>
void in_pieces(std::uint64_t bytes, const Patience& patience, Each each) {
    for (std::uint64_t done = 0; done < bytes; done += kPiece) {
        if (done != 0) patience.check();
        each(done, std::min(kPiece, bytes - done));
    }
}

}  // namespace

Segment Segment::create(std::uint64_t capacity, const Patience& patience) {
    check_capacity(capacity);
    Segment segment;
    segment.capacity_ = capacity;
    segment.descriptor_ = make_shared_memory(segment.bytes());
    segment.mapping_ = map_shared_memory(segment.descriptor(), segment.bytes());
    auto* const memory = static_cast<std::uint8_t*>(segment.mapping_);
    in_pieces(segment.bytes(), patience, [&](std::uint64_t begin, std::uint64_t size) {
        reserve_memory(segment.descriptor(), begin, size, segment.bytes());
        populate_memory(memory + begin, size);
    });
    auto* const header = new (segment.mapping_) SegmentHeader{};
    header->magic = kSegmentMagic;
    header->version = kProtocolVersion;
    header->header_bytes = kHeaderBytes;
    header->capacity = capacity;
    return segment;
}

Segment Segment::attach(Descriptor descriptor, std::uint64_t capacity, const Patience& patience) {
    if (!is_valid_capacity(capacity)) refuse("capacity " + std::to_string(capacity));
    Segment segment;
    segment.capacity_ = capacity;
    segment.descriptor_ = std::move(descriptor);
    const auto look = [&] {
        if (const std::string why = refusal_of_memory(segment.descriptor(), segment.bytes()); !why.empty()) refuse(why);
        // A number of its own, because a listener that drops a client takes the memory back: the client has to tell the two.
        if (const std::uint64_t missing = unreserved_memory(segment.descriptor(), segment.bytes()); missing != 0) {
            fail_handshake(ENODATA, "the peer's segment was refused: of its " + std::to_string(segment.bytes()) +
                                        " bytes the listener has not reserved " + std::to_string(missing));
        }
    };
    look();
    segment.mapping_ = map_shared_memory(segment.descriptor(), segment.bytes());
    const SegmentHeader* const header = segment.header();
    if (header->magic != kSegmentMagic || header->version != kProtocolVersion || header->header_bytes != kHeaderBytes ||
        header->capacity != capacity) {
        refuse("its header page does not say what the handshake said");
    }
    auto* const memory = static_cast<std::uint8_t*>(segment.mapping_);
    in_pieces(segment.bytes(), patience, [&](std::uint64_t begin, std::uint64_t size) {
        look();  // the peer may give memory back at any time: then it must not become ours to pay for
        populate_memory(memory + begin, size);
    });
    return segment;
}

void Segment::unmap() noexcept {
    if (mapping_ != nullptr) ::munmap(std::exchange(mapping_, nullptr), bytes());
}

Segment::Segment(Segment&& other) noexcept
    : descriptor_(std::move(other.descriptor_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Segment& Segment::operator=(Segment&& other) noexcept {
    if (this != &other) {
        unmap();
        descriptor_ = std::move(other.descriptor_);
        mapping_ = std::exchange(other.mapping_, nullptr);
        capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
}

Segment::~Segment() { unmap(); }

int Segment::bind_to_node(unsigned node) const noexcept { return bind_memory_to_node(mapping_, bytes(), node); }

}  // namespace tachyon
