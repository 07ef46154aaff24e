#include "offer.hpp"

#include <unistd.h>

#include <cerrno>
#include <span>
#include <utility>

#include "tachyon/error.hpp"

namespace tachyon {

std::vector<SegmentOffer> describe_offers(const Arrangement& arrangement,
                                          const std::vector<std::uint64_t>& capacities) {
    if (capacities.size() != arrangement.segments || capacities.size() > kMaxSegments) {
        throw SetupError(SetupFailure::capacity, EINVAL,
                         "capacities: a " + std::string(arrangement.name) + " takes " +
                             std::to_string(arrangement.segments) + ", not " + std::to_string(capacities.size()));
    }
    std::vector<SegmentOffer> offers;
    offers.reserve(capacities.size());
    for (std::size_t i = 0; i < capacities.size(); ++i) offers.push_back(arrangement.describe(i, capacities[i]));
    return offers;
}

std::vector<Segment> make_segments(const Arrangement& arrangement, const std::vector<SegmentOffer>& offers,
                                   const Patience& patience) {
    std::vector<Segment> segments;
    segments.reserve(offers.size());
    for (const SegmentOffer& offer : offers) {
        segments.push_back(Segment::create(offer.bytes, patience));
        arrangement.arrange(segments.back(), offer);
    }
    return segments;
}

std::vector<Descriptor> share_for_reading(const std::vector<Segment>& segments,
                                          const std::vector<SegmentOffer>& offers) {
    std::vector<Descriptor> shared(segments.size());
    for (std::size_t i = 0; i < segments.size(); ++i) {
        if (offers[i].access == static_cast<std::uint32_t>(Access::read_only)) shared[i] = segments[i].share_to_read();
    }
    return shared;
}

Offer::Offer(std::string listener, std::string where, const ConnectOptions& options)
    : listener_(std::move(listener)),
      where_(std::move(where)),
      options_(options),
      arrangement_(options.arrangement != nullptr ? *options.arrangement : arrangement_of(options.kind)),
      hello_(make_hello(arrangement_, make_abilities(register_membarrier(), options.max_large), options.schema)) {}

void Offer::explain(const HelloReader& reader) const {
    if (reader.misbehaved()) fail_handshake(EPROTO, listener_ + " passed more descriptors than were asked for");
    if (reader.garbled()) garbled();
    if (reader.starved()) fail_descriptor(EMFILE, "cannot take the descriptors from " + listener_);
}

void Offer::check(HelloReader& reader) const {
    const Hello& theirs = reader.hello();
    judge_theirs(theirs);
    if (theirs.segments != arrangement_.segments || reader.descriptors().size() != arrangement_.segments) {
        fail_handshake(EPROTO, listener_ + " passed " + std::to_string(reader.descriptors().size()) +
                                   " descriptors, not " + std::to_string(arrangement_.segments));
    }
    if (!is_offer(theirs)) garbled();
}

void Offer::judge_theirs(const Hello& theirs) const {
    if (!is_ours(theirs)) {
        fail_handshake(EPROTO, listener_ + " does not speak this protocol or has another byte order");
    }
    const Verdict ours = judge_prefix(theirs);
    if (ours == Verdict::wrong_version) speaks_another_version(theirs.version, kHelloVersion);
    if (ours == Verdict::wrong_layout) has_another_layout();
    const auto verdict = static_cast<Verdict>(theirs.verdict);
    if (verdict == Verdict::wrong_user) {
        fail_handshake(
            EACCES, listener_ + " refuses user " + std::to_string(::geteuid()) + "; let it listen with another mode=");
    }
    switch (judge(theirs, arrangement_)) {
        case Verdict::wrong_version: speaks_another_version(theirs.arrangement, arrangement_.version);
        case Verdict::wrong_layout: has_another_layout();
        case Verdict::wrong_kind:
            fail_handshake(EPROTOTYPE, "a " + std::string(kind_name(theirs.kind)) + " " + where_ + ", not a " +
                                           arrangement_.name + "; use the same class on both sides");
        default: break;
    }
    if (verdict != Verdict::accepted) {
        fail_handshake(EPROTO, listener_ + " refused with code " + std::to_string(theirs.verdict));
    }
}

// What is offered has to be what the arrangement makes of the capacity, and that no more than was allowed.
void Offer::agree(std::size_t index, const SegmentOffer& offer) const {
    SegmentOffer expected{};
    try {
        expected = arrangement_.describe(index, offer.capacity);
    } catch (const SetupError&) {
        refuse_segment("capacity " + std::to_string(offer.capacity));
    }
    if (offer.capacity > options_.max_capacity) {
        fail_handshake(EFBIG, listener_ + " offers a ring of " + std::to_string(offer.capacity) + " bytes, more than " +
                                  std::to_string(options_.max_capacity) +
                                  "; if you trust it with so much, say so with max_capacity=");
    }
    if (offer != expected) {
        refuse_segment("offered are " + std::to_string(offer.bytes) + " bytes with access " +
                       std::to_string(offer.access) + ", where capacity " + std::to_string(offer.capacity) + " takes " +
                       std::to_string(expected.bytes) + " and " + std::to_string(expected.access));
    }
}

std::vector<Segment> Offer::map(HelloReader& reader, const Patience& patience) const {
    const std::span<const SegmentOffer> offers(reader.hello().offers, arrangement_.segments);
    for (std::size_t i = 0; i < offers.size(); ++i) agree(i, offers[i]);
    std::vector<Segment> segments;
    segments.reserve(offers.size());
    for (std::size_t i = 0; i < offers.size(); ++i) {
        segments.push_back(take(std::move(reader.descriptors()[i]), offers[i], patience));
    }
    return segments;
}

Segment Offer::take(Descriptor descriptor, const SegmentOffer& offer, const Patience& patience) const {
    Segment segment = Segment::attach(std::move(descriptor), offer.bytes, static_cast<Access>(offer.access));
    if (const char* const why = arrangement_.refusal(segment, offer); why != nullptr) refuse_segment(why);
    segment.populate(patience);
    segment.close_descriptor();
    return segment;
}

std::uint64_t Offer::bytes(const Hello& hello) const noexcept {
    std::uint64_t all = 0;
    for (std::size_t i = 0; i < arrangement_.segments; ++i) all += hello.offers[i].bytes;
    return all;
}

void Offer::fail_to_end() const { fail_handshake(EPROTO, listener_ + " did not end the handshake as it should"); }

void Offer::speaks_another_version(std::uint16_t theirs, std::uint16_t ours) const {
    fail_handshake(EPROTONOSUPPORT, listener_ + " speaks protocol version " + std::to_string(theirs) + ", this side " +
                                        std::to_string(ours) + "; install the same release on both");
}

void Offer::has_another_layout() const {
    fail_handshake(EPROTONOSUPPORT, listener_ + " has another memory layout; install the same release on both");
}

void Offer::garbled() const { fail_handshake(EPROTO, "the greeting of " + listener_ + " contradicts itself"); }

}  // namespace tachyon
