#include "tachyon/shm/segment.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "platform/memory.hpp"
#include "tachyon/error.hpp"

namespace tachyon {

void refuse_segment(const std::string& why) { fail_handshake(EPROTO, "the peer's segment was refused: " + why); }

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

Segment Segment::create(std::uint64_t bytes, const Patience& patience) {
    Segment segment;
    segment.bytes_ = bytes;
    segment.descriptor_ = make_shared_memory(bytes);
    segment.mapping_ = map_shared_memory(segment.descriptor(), bytes, Access::read_write);
    auto* const memory = static_cast<std::uint8_t*>(segment.mapping_);
    in_pieces(bytes, patience, [&](std::uint64_t begin, std::uint64_t size) {
        reserve_memory(segment.descriptor(), begin, size, bytes);
        populate_memory(memory + begin, size, Access::read_write);
    });
    return segment;
}

Segment Segment::attach(Descriptor descriptor, std::uint64_t bytes, Access access) {
    Segment segment;
    segment.bytes_ = bytes;
    segment.access_ = access;
    segment.descriptor_ = std::move(descriptor);
    segment.check();
    if (const std::uint64_t hole = first_hole(segment.descriptor(), bytes); hole != bytes) {
        segment.refuse_unreserved("those from " + std::to_string(hole) + " on");
    }
    segment.mapping_ = map_shared_memory(segment.descriptor(), bytes, access);
    return segment;
}

void Segment::check() const {
    if (const std::string why = refusal_of_memory(descriptor(), bytes_, access_); !why.empty()) refuse_segment(why);
    if (const std::uint64_t missing = unreserved_memory(descriptor(), bytes_); missing != 0) {
        refuse_unreserved(std::to_string(missing));
    }
}

// A number of its own, because a listener that drops a client takes the memory back: the client has to tell the two.
void Segment::refuse_unreserved(const std::string& which) const {
    fail_handshake(ENODATA, "the peer's segment was refused: of its " + std::to_string(bytes_) +
                                " bytes the listener has not reserved " + which);
}

void Segment::populate(const Patience& patience) const {
    auto* const memory = static_cast<std::uint8_t*>(mapping_);
    in_pieces(bytes_, patience, [&](std::uint64_t begin, std::uint64_t size) {
        check();  // the peer may give memory back at any time: then it must not become ours to pay for
        populate_memory(memory + begin, size, access_);
    });
}

Descriptor Segment::share_to_read() const { return share_memory_to_read(descriptor(), bytes_); }

void Segment::discard_from(std::uint64_t begin) const noexcept {
    if (begin < bytes_) discard_memory(descriptor(), begin, bytes_ - begin);
}

void Segment::unmap() noexcept {
    if (mapping_ != nullptr) ::munmap(std::exchange(mapping_, nullptr), bytes_);
}

Segment::Segment(Segment&& other) noexcept
    : descriptor_(std::move(other.descriptor_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      access_(other.access_) {}

Segment& Segment::operator=(Segment&& other) noexcept {
    if (this != &other) {
        unmap();
        descriptor_ = std::move(other.descriptor_);
        mapping_ = std::exchange(other.mapping_, nullptr);
        bytes_ = std::exchange(other.bytes_, 0);
        access_ = other.access_;
    }
    return *this;
}

Segment::~Segment() { unmap(); }

int Segment::bind_to_node(unsigned node) const noexcept { return bind_memory_to_node(mapping_, bytes_, node); }

}  // namespace tachyon
