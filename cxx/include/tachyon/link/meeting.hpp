// Purpose: the handshake over a socket that is connected already: one of a pair whose other one somebody else has, or will get.
//   Who made the two need not be who uses them, so each side learns from the greeting itself whom it talks to. Whoever was given
//   the other socket is let in, whatever its user.
// Threads: one at a time. Lifetime: what comes of it lives on by itself. In a forked child a Meeting has come to its end.
// Ordering: none.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "tachyon/link/handshake.hpp"

namespace tachyon {

class Meeting {
  public:
    // The listener's side. `memory`: fresh segments of the options' capacities, made beforehand; none: they are made when the
    // other side has come. Of the options kind, capacities, arrangement and schema count. SetupError: capacity; handshake.
    Meeting(Descriptor socket, ListenOptions options, std::vector<Segment> memory = {});
    // The connector's. The uid does not count. SetupError: handshake.
    Meeting(Descriptor socket, ConnectOptions options);
    Meeting(const Meeting&) = delete;
    Meeting& operator=(const Meeting&) = delete;
    ~Meeting();

    // As far as it goes without waiting for the other side; memory is mapped meanwhile, a GiB a second or so. SetupError: handshake
    // (nobody holds the other end any more; what came is no greeting; …), memory, interrupted. After one it is over.
    std::optional<Established> advance(const Interrupt& interrupt = {});
    // Until the deadline. After timed_out one may go on, and after interrupted, unless that came while memory was being mapped.
    Established meet(std::uint64_t deadline, const Interrupt& interrupt = {});

    // Readable when advance() may get further, or -1: it is over. Besides, it wants to be called 5 s after the maker has died.
    [[nodiscard]] int descriptor() const noexcept;
    [[nodiscard]] bool forked() const noexcept;

  private:
    class Half;
    class ListeningHalf;
    class ConnectingHalf;
    std::unique_ptr<Half> half_;
};

}  // namespace tachyon
