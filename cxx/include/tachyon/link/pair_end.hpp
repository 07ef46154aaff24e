// Purpose: the two ends of a bus, or of an RPC, that one process makes for others. Each is one descriptor, to be handed over in whatever
//   way there is: by fork, by exec, over a socket. It is a socket in which the end itself waits: a connected socket and, for the
//   listener, the memory. Whoever takes it out has the end; all other copies of the descriptor are empty from then on, and harm nobody.
// Threads: one at a time; of the processes that hold a copy any may try to take it at the same time.
// Lifetime: an end that nobody takes lives as long as any copy of its descriptor. The memory is reserved by make(), and belongs to both.
// Ordering: none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "tachyon/link/meeting.hpp"

namespace tachyon {

class PairEnd {
  public:
    // The listener's end and the connector's. `producer`: who sends, of a Bus with fixed roles. Of the options kind and capacities count,
    // and the deadline: of reserving the memory. SetupError: capacity, memory; handshake: no descriptors, or too many ends are waiting.
    static std::pair<PairEnd, PairEnd> make(const ListenOptions& options, Side producer = Side::undecided,
                                            const Interrupt& interrupt = {});

    PairEnd() noexcept = default;
    explicit PairEnd(Descriptor from_elsewhere) noexcept;  // closed on exec from now on

    [[nodiscard]] int descriptor() const noexcept { return box_.get(); }  // -1: taken here, or closed
    void close() noexcept { box_.reset(); }

    struct Taken {
        std::unique_ptr<Meeting> meeting;
        Kind kind;
        Side producer;
    };
    // Nothing: somebody else was first. SetupError: handshake (that is no end; no descriptors: it can still be taken), memory.
    std::optional<Taken> take();

  private:
    Descriptor box_;
};

}  // namespace tachyon
