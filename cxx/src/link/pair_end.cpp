#include "tachyon/link/pair_end.hpp"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "greeting.hpp"
#include "offer.hpp"
#include "platform/sockets.hpp"
#include "tachyon/error.hpp"

namespace tachyon {
namespace {

constexpr std::string_view kNoteMagic{"TACHYON\x03", 8};

// What lies in the box beside the descriptors, for whoever has the same release of this.
struct Note {
    char magic[8];
    std::uint32_t hello_hash;
    std::uint32_t arrangement_hash;
    std::uint32_t kind;
    std::uint32_t side;      // of who takes it
    std::uint32_t producer;  // a Side
    std::uint32_t reserved;
    std::uint64_t max_large;
    std::uint64_t capacities[kMaxSegments];
};
static_assert(std::has_unique_object_representations_v<Note>);

[[noreturn]] void no_end() {
    fail_handshake(
        EPROTO,
        "this descriptor is not that of an end: pass on what fileno() says, and use the same release on both sides");
}

void fill(int box, const Note& note, std::span<const int> descriptors) {
    if (send_with(box, std::as_bytes(std::span(&note, 1)), descriptors)) return;
    if (errno == ETOOMANYREFS) {
        fail_handshake(ETOOMANYREFS,
                       "too many ends are neither open nor closed: of each user's descriptors the kernel keeps no more "
                       "on their way "
                       "than one process may have open; use or close some, or raise that limit (ulimit -n)");
    }
    fail_handshake(errno, std::string("cannot make an end: ") + std::strerror(errno));
}

void need_pair(Descriptor& one, Descriptor& other) {
    if (!open_socket_pair(one, other)) fail_descriptor(errno, "cannot make an end");
}

Descriptor box_of(const Note& note, std::span<const int> descriptors) {
    Descriptor box, filler;
    need_pair(box, filler);
    fill(filler.get(), note, descriptors);
    return box;
}

bool is_right(const Note& note) {
    if (std::string_view(note.magic, sizeof note.magic) != kNoteMagic || note.hello_hash != hello_hash()) return false;
    const auto kind = static_cast<Kind>(note.kind);
    return (kind == Kind::bus || kind == Kind::rpc) && note.arrangement_hash == arrangement_of(kind).hash &&
           (note.side == 1 || note.side == 2) && note.producer <= 2;
}

std::unique_ptr<Meeting> meeting_of(const Note& note, std::vector<Descriptor>& descriptors) {
    const auto kind = static_cast<Kind>(note.kind);
    const Arrangement& arrangement = arrangement_of(kind);
    const bool listens = static_cast<Side>(note.side) == Side::listener;
    if (descriptors.size() != 1 + (listens ? arrangement.segments : 0)) no_end();
    if (!listens) {
        return std::make_unique<Meeting>(
            std::move(descriptors[0]),
            ConnectOptions{.kind = kind, .max_capacity = kNever, .max_large = note.max_large});
    }
    ListenOptions options{.kind = kind,
                          .capacities = {note.capacities, note.capacities + arrangement.segments},
                          .max_large = note.max_large};
    std::vector<Segment> memory;
    std::size_t next = 1;
    for (const SegmentOffer& offer : describe_offers(arrangement, options.capacities)) {
        memory.push_back(Segment::attach(std::move(descriptors[next++]), offer.bytes, Access::read_write));
    }
    return std::make_unique<Meeting>(std::move(descriptors[0]), std::move(options), std::move(memory));
}

}  // namespace

PairEnd::PairEnd(Descriptor from_elsewhere) noexcept : box_(std::move(from_elsewhere)) {
    ::fcntl(box_.get(), F_SETFD, FD_CLOEXEC);
}

std::pair<PairEnd, PairEnd> PairEnd::make(const ListenOptions& options, Side producer, const Interrupt& interrupt) {
    return set_up([&] {
        const Arrangement& arrangement = arrangement_of(options.kind);
        const std::vector<SegmentOffer> offers = describe_offers(arrangement, options.capacities);
        (void)make_abilities(false, options.max_large);  // refuses what is no max_large
        std::vector<Segment> memory;
        memory.reserve(offers.size());
        for (const SegmentOffer& offer : offers)
            memory.push_back(Segment::create(offer.bytes, {options.deadline, interrupt}));
        Descriptor listener, connector;
        need_pair(listener, connector);
        Note note{};
        std::memcpy(note.magic, kNoteMagic.data(), sizeof note.magic);
        note.hello_hash = hello_hash();
        note.arrangement_hash = arrangement.hash;
        note.kind = static_cast<std::uint32_t>(options.kind);
        note.producer = static_cast<std::uint32_t>(producer);
        note.max_large = options.max_large;
        std::ranges::copy(options.capacities, note.capacities);
        std::vector<int> numbers{listener.get()};
        for (const Segment& segment : memory) numbers.push_back(segment.descriptor());
        note.side = static_cast<std::uint32_t>(Side::listener);
        std::pair<PairEnd, PairEnd> ends;
        ends.first.box_ = box_of(note, numbers);
        note.side = static_cast<std::uint32_t>(Side::connector);
        ends.second.box_ = box_of(note, std::array{connector.get()});
        return ends;
    });
}

// Looked at first, and taken out when all is well: what could not be received would be gone for ever.
std::optional<PairEnd::Taken> PairEnd::take() {
    return set_up([&]() -> std::optional<Taken> {
        if (!box_) fail_handshake(EBADF, "this end is closed");
        Note note{};
        std::vector<Descriptor> descriptors;
        const ssize_t n = peek_with(box_.get(), std::as_writable_bytes(std::span(&note, 1)), descriptors);
        if (n == 0) return std::nullopt;
        if (n < 0 && errno == EMFILE) fail_descriptor(EMFILE, "cannot take this end");
        if (n != sizeof note || !is_right(note)) no_end();
        Taken taken{meeting_of(note, descriptors), static_cast<Kind>(note.kind), static_cast<Side>(note.producer)};
        if (::recv(box_.get(), &note, sizeof note, kReceive) != sizeof note)
            return std::nullopt;  // somebody else came in between
        close();
        return taken;
    });
}

}  // namespace tachyon
