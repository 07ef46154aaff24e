// Purpose: what Linux and macOS have under different names, or only one of them has: one interface, and a file for each system,
//   platform_linux.cpp and platform_macos.cpp. They define EventQueue (event_queue.hpp) too. Private to the core.
// Threads: any. Lifetime: as the Descriptors that are returned. Ordering: none.
#pragma once

#include <sys/types.h>
#include <sys/un.h>

#include <cstdint>
#include <string>

#include "tachyon/link/descriptor.hpp"

namespace tachyon {

// ---- memory --------------------------------------------------------------------------------------------------------------

// `bytes` of shared memory, all zero, whose size nobody can change any more. SetupError: memory; handshake where there is no
// free descriptor.
Descriptor make_shared_memory(std::uint64_t bytes);
// Reserves a piece of `total` bytes, as far as the system can. SetupError (memory).
void reserve_memory(int descriptor, std::uint64_t begin, std::uint64_t size, std::uint64_t total);
// Maps a piece's pages now, so that nobody has to wait for that later.
void populate_memory(std::uint8_t* begin, std::uint64_t size) noexcept;

// Gives a piece back to the system, whoever else holds or maps it: it reads as zeros, as far as the system can.
void discard_memory(int descriptor, std::uint64_t begin, std::uint64_t size) noexcept;

// Why what a peer passed must not be mapped; empty if it is memory of that kind, writable, of this size. Anything else could
// shrink under us, which is a SIGBUS.
std::string refusal_of_memory(int descriptor, std::uint64_t bytes);
// How much of it, where the system can reserve, is not reserved: the first look at that would take it from what we may use, while
// what is reserved is charged to who did that.
std::uint64_t unreserved_memory(int descriptor, std::uint64_t bytes) noexcept;

// SetupError (memory).
void* map_shared_memory(int descriptor, std::uint64_t bytes);

// Moves the pages to a NUMA node and prefers it from now on. 0, or an errno. No effect where there is no NUMA.
int bind_memory_to_node(const void* memory, std::uint64_t bytes, unsigned node) noexcept;

// ---- sockets -------------------------------------------------------------------------------------------------------------

// Non-blocking, closed on exec, and without a SIGPIPE. Empty: see errno.
Descriptor open_stream_socket() noexcept;
Descriptor accept_stream_socket(int listener) noexcept;

// Makes the socket file, with this mode whatever the umask: never by chmod, which could hit what somebody else puts at the path
// meanwhile. 0, or an errno.
int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode) noexcept;

// A number that arrived by SCM_RIGHTS, received with kReceive: closed on exec.
Descriptor own_received(int number) noexcept;

extern const int kSend, kReceive;  // flags for send and recv, and their like: neither waits or raises a signal

// Gives a socket that is going to connect a name by which the listener may know it (kConnectorName), where that needs no file.
void name_connector(int socket) noexcept;

struct Peer {
    pid_t pid = 0;  // 0: in a PID namespace that we cannot see
    uid_t uid = 0;
    Descriptor process;  // readable once the process has ended, for poll and EventQueue; none where none can be had
    Descriptor record;   // only then: what the system writes down about it, for has_hung_up alone
    bool ended = false;  // it is gone already
};
Peer identify_peer(int socket);  // SetupError (handshake)
// In a forked child.
void disown_process(Descriptor& process) noexcept;

// The peer has hung up, whatever it left unread, or its process (by either descriptor, or -1) has ended. Where poll refuses, as
// it does for a process that has lowered its limit on descriptors, something else is asked: no failure means that it lives.
bool has_hung_up(int socket, int process, int record) noexcept;

// There is something to read, or to accept; or nobody can tell.
bool is_readable(int descriptor) noexcept;

}  // namespace tachyon
