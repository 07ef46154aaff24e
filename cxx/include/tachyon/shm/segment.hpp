// Purpose: one sealed piece of shared memory (a memfd) and its mapping: bytes and access rights. What stands in it is the business
//   of an arrangement, such as ring/ring_segment.hpp.
// Threads: create, attach, move and destroy from one thread at a time. The memory itself is the arrangement's business.
// Lifetime: the mapping lives as long as the Segment; the descriptor only until it has been passed on.
// Ordering: none.
#pragma once

#include <cstdint>
#include <string>

#include "tachyon/link/descriptor.hpp"
#include "tachyon/shm/access.hpp"
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
    // `bytes` of new memory, all of it 0 and reserved, to read and write. SetupError: memory; timed_out, interrupted; handshake
    // where there is no free descriptor.
    static Segment create(std::uint64_t bytes, const Patience& patience = {});

    // What a peer made and passed. Its size, its seals, what it lets us do, and that its memory is reserved, are checked before
    // anything is mapped. SetupError: handshake, memory.
    static Segment attach(Descriptor descriptor, std::uint64_t bytes, Access access);

    Segment() noexcept = default;
    Segment(Segment&& other) noexcept;
    Segment& operator=(Segment&& other) noexcept;
    Segment(const Segment&) = delete;
    Segment& operator=(const Segment&) = delete;
    ~Segment();

    // Maps the pages of what a peer made now, so that nobody waits for that later; and checks that they are still reserved, before
    // each piece. SetupError: handshake; timed_out, interrupted.
    void populate(const Patience& patience = {}) const;

    // A descriptor of its own to pass on, which lets its holder read and no more. SetupError: handshake (no free descriptor), memory.
    [[nodiscard]] Descriptor share_to_read() const;
    // Gives the memory from there on back to the system, whoever else holds or maps it: it reads as zeros.
    void discard_from(std::uint64_t begin) const noexcept;

    [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }
    void close_descriptor() noexcept { descriptor_.reset(); }

    [[nodiscard]] void* memory() const noexcept { return mapping_; }  // null: moved from
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
    [[nodiscard]] Access access() const noexcept { return access_; }

    // Moves the pages to a NUMA node and prefers it from now on. 0, or an errno. No effect where there is no NUMA.
    [[nodiscard]] int bind_to_node(unsigned node) const noexcept;

  private:
    void check() const;
    [[noreturn]] void refuse_unreserved(const std::string& which) const;
    void unmap() noexcept;

    Descriptor descriptor_;
    void* mapping_ = nullptr;
    std::uint64_t bytes_ = 0;
    Access access_ = Access::read_write;
};

// SetupError (handshake): what a peer passed, or said of it, is not what it should be.
[[noreturn]] void refuse_segment(const std::string& why);

}  // namespace tachyon
