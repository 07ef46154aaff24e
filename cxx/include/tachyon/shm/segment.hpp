// Purpose: one sealed piece of shared memory (a memfd) and its mapping.
// Threads: create, attach, move and destroy from one thread at a time. The memory itself is the ring's business.
// Lifetime: the mapping lives as long as the Segment; the descriptor only until it has been passed on.
// Ordering: none; the header is written before the descriptor leaves the process.
#pragma once

#include <cstdint>
#include <string>

#include "tachyon/link/descriptor.hpp"
#include "tachyon/ring/ring.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// For how long to go on with what takes long, a GiB a second or so.
struct Patience {
    std::uint64_t deadline = kNever;
    Interrupt interrupt{};
    std::string doing = "memory was being reserved";  // for the text
    void check() const;                               // SetupError: timed_out, interrupted
};

class Segment {
  public:
    // A new, empty ring of `capacity` bytes, its memory reserved. SetupError: capacity, memory; timed_out, interrupted.
    static Segment create(std::uint64_t capacity, const Patience& patience = {});

    // A ring that the peer made. Its size, seals, header, and that its memory is reserved, are checked before anything is touched. SetupError: handshake, memory;
    // timed_out, interrupted.
    static Segment attach(Descriptor descriptor, std::uint64_t capacity, const Patience& patience = {});

    Segment() noexcept = default;
    Segment(Segment&& other) noexcept;
    Segment& operator=(Segment&& other) noexcept;
    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;
    ~Segment();

    [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
    void close_descriptor() noexcept { descriptor_.reset(); }

    [[nodiscard]] std::uint64_t capacity() const noexcept { return capacity_; }
    [[nodiscard]] SegmentHeader* header() const noexcept { return static_cast<SegmentHeader*>(mapping_); }
    [[nodiscard]] RingMemory ring(Barrier barrier, Doorbell doorbell = {}) const noexcept {
        return {header(), static_cast<std::uint8_t*>(mapping_) + kHeaderBytes, capacity_, barrier, doorbell};
    }

    // Moves the pages to a NUMA node and prefers it from now on. 0, or an errno. No effect where there is no NUMA.
    [[nodiscard]] int bind_to_node(unsigned node) const noexcept;

  private:
    void unmap() noexcept;
    [[nodiscard]] std::uint64_t bytes() const noexcept { return kHeaderBytes + capacity_; }

    Descriptor descriptor_;
    void* mapping_ = nullptr;
    std::uint64_t capacity_ = 0;
};

// Throws SetupError (capacity), naming the value and the bounds.
void check_capacity(std::uint64_t capacity);

}  // namespace tachyon
