// Purpose: the segments that a listener offers, and what a connector makes of its hello: checks it, and maps what came with it.
//   Private to the handshake.
// Threads: one at a time. Lifetime: the options and the arrangement stay. Ordering: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "greeting.hpp"
#include "tachyon/link/handshake.hpp"
#include "tachyon/shm/segment.hpp"

namespace tachyon {

// What each client will be offered. SetupError (capacity).
std::vector<SegmentOffer> describe_offers(const Arrangement& arrangement, const std::vector<std::uint64_t>& capacities);
// Arranged. SetupError: as Segment::create.
std::vector<Segment> make_segments(const Arrangement& arrangement, const std::vector<SegmentOffer>& offers,
                                   const Patience& patience);
// Of the segments that the connector may only read; in the others' places none: it gets ours.
std::vector<Descriptor> share_for_reading(const std::vector<Segment>& segments,
                                          const std::vector<SegmentOffer>& offers);

// A connector's view.
class Offer {
  public:
    // `listener`: who it is, and `where`, for texts: "the listener at …", "listens at …". SetupError (handshake): more is said of the contents than this kind says.
    Offer(std::string listener, std::string where, const ConnectOptions& options);

    // Says what this side wants. False: the listener is gone.
    [[nodiscard]] bool ask(int socket) const { return send_hello(socket, hello_, options_.schema); }
    [[nodiscard]] HelloReader reader() const { return HelloReader(arrangement_.segments, arrangement_.max_schema); }
    // Why a reader has failed that did not come to an end. Returns if the listener has hung up.
    void explain(const HelloReader& reader) const;
    // Of a complete one.
    void check(HelloReader& reader) const;
    // Sizes first: nothing is mapped where one of them is not agreed to. SetupError: ENODATA where memory is not reserved.
    [[nodiscard]] std::vector<Segment> map(HelloReader& reader, const Patience& patience) const;
    [[nodiscard]] std::uint64_t bytes(const Hello& hello) const noexcept;  // of all segments
    void settle(Connection& connection, const Hello& hello) const noexcept {
        tachyon::settle(connection, hello_.abilities, hello.abilities);
    }
    // The byte after the segments is not the one that ends the handshake.
    [[noreturn]] void fail_to_end() const;

  private:
    void judge_theirs(const Hello& theirs) const;
    void agree(std::size_t index, const SegmentOffer& offer) const;
    [[nodiscard]] Segment take(Descriptor descriptor, const SegmentOffer& offer, const Patience& patience) const;
    [[noreturn]] void speaks_another_version(std::uint16_t theirs, std::uint16_t ours) const;
    [[noreturn]] void has_another_layout() const;
    [[noreturn]] void garbled() const;

    const std::string listener_;
    const std::string where_;
    const ConnectOptions& options_;
    const Arrangement& arrangement_;
    const Hello hello_;
};

}  // namespace tachyon
