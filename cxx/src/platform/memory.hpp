// Purpose: shared memory as each system has it: one interface, and a source for each, memory_linux.cpp and memory_macos.cpp.
//   Private to the core.
// Threads: any. Lifetime: as the Descriptors that are returned. Ordering: none.
#pragma once

#include <cstdint>
#include <string>

#include "tachyon/link/descriptor.hpp"
#include "tachyon/shm/access.hpp"

namespace tachyon {

// `bytes` of shared memory, all zero, whose size nobody can change any more. SetupError: memory; handshake where there is no
// free descriptor.
Descriptor make_shared_memory(std::uint64_t bytes);
// Reserves a piece of `total` bytes, as far as the system can. SetupError (memory).
void reserve_memory(int descriptor, std::uint64_t begin, std::uint64_t size, std::uint64_t total);
// Maps a piece's pages now, so that nobody has to wait for that later.
void populate_memory(std::uint8_t* begin, std::uint64_t size, Access access) noexcept;

// Gives a piece back to the system, whoever else holds or maps it: it reads as zeros, as far as the system can.
void discard_memory(int descriptor, std::uint64_t begin, std::uint64_t size) noexcept;

// A descriptor of the same memory that lets its holder read and no more. SetupError: memory; handshake where there is no free one.
Descriptor share_memory_to_read(int descriptor, std::uint64_t bytes);

// Why what a peer passed must not be mapped; empty if it is memory of that kind, with this access, of this size. Anything else
// could shrink under us, which is a SIGBUS.
std::string refusal_of_memory(int descriptor, std::uint64_t bytes, Access access);
// How much of it, where the system can reserve, is not reserved: the first look at that would take it from what we may use, while
// what is reserved is charged to who did that.
std::uint64_t unreserved_memory(int descriptor, std::uint64_t bytes) noexcept;
// Where it has the first hole; `bytes`: it has none, or the system cannot tell. What was reserved counts once it has been touched. Unlike
// the number above it is not misled by what was reserved behind the end; but it takes 16 ms for a GiB.
std::uint64_t first_hole(int descriptor, std::uint64_t bytes) noexcept;

// SetupError (memory).
void* map_shared_memory(int descriptor, std::uint64_t bytes, Access access);

// ---- a parcel: the memory of one message, which nobody can change once it is sealed; 0, or an errno ----

extern const bool kHasParcels;  // or this system has nothing of the kind, and every call below says ENOTSUP

// Empty memory of that size; what is written to it is taken from the machine then.
int make_parcel(std::uint64_t bytes, Descriptor& memory) noexcept;
int write_parcel(int descriptor, std::uint64_t start, const void* data, std::uint64_t bytes) noexcept;
// Reserves all of it, and maps it to be written.
int map_parcel_to_write(int descriptor, std::uint64_t bytes, void*& memory) noexcept;
// Cuts it down to so many bytes, and seals it. It must not be mapped to be written any more.
int seal_parcel(int descriptor, std::uint64_t bytes) noexcept;
// Of what a peer passed. EPROTO: it is not a parcel of that size, sealed and without a hole.
int map_parcel_to_read(int descriptor, std::uint64_t bytes, void*& memory) noexcept;

// Moves the pages to a NUMA node and prefers it from now on. 0, or an errno. No effect where there is no NUMA.
int bind_memory_to_node(const void* memory, std::uint64_t bytes, unsigned node) noexcept;

}  // namespace tachyon
