// Purpose: sockets, and who is at the other end, as each system has them: one interface, and two sources for each system,
//   sockets_*.cpp and peer_*.cpp. EventQueue (event_queue.hpp) is the third: events_*.cpp. Private to the core.
// Threads: any. Lifetime: as the Descriptors that are returned. Ordering: none.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "tachyon/link/descriptor.hpp"

namespace tachyon {

// Non-blocking, closed on exec, and without a SIGPIPE. Empty: see errno.
Descriptor open_stream_socket() noexcept;
Descriptor accept_stream_socket(int listener) noexcept;
// Two that are connected. False: see errno.
bool open_socket_pair(Descriptor& one, Descriptor& other) noexcept;

// Makes the socket file, with this mode whatever the umask: never by chmod, which could hit what somebody else puts at the path
// meanwhile. 0, or an errno.
int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode);

// A number that arrived by SCM_RIGHTS, received with kReceive: closed on exec.
Descriptor own_received(int number) noexcept;

extern const int kSend, kReceive;  // flags for send and recv, and their like: neither waits or raises a signal

// For sendmsg and recvmsg: a message of one part, with room for control data.
inline msghdr message_of(iovec& part, std::span<char> control) noexcept {
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = static_cast<decltype(message.msg_controllen)>(control.size());
    return message;
}
// Has descriptors go with a message. `control` is zeroed and has room for them.
inline void attach_descriptors(msghdr& message, std::span<char> control, std::span<const int> descriptors) noexcept {
    message.msg_control = control.data();
    message.msg_controllen = static_cast<decltype(message.msg_controllen)>(CMSG_SPACE(descriptors.size_bytes()));
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = static_cast<decltype(rights->cmsg_len)>(CMSG_LEN(descriptors.size_bytes()));
    std::memcpy(CMSG_DATA(rights), descriptors.data(), descriptors.size_bytes());
}

// Gives a socket that is going to connect a name by which the listener may know it (kConnectorName), where that needs no file.
void name_connector(int socket) noexcept;

// Sends one byte, and a descriptor with it. 0, or an errno. Never waits.
int pass_descriptor(int socket, char byte, int descriptor) noexcept;
// Takes bytes out of the socket, up to and with the first that a descriptor came with. A descriptor for which this process has no
// free number stays where it is (starved), and so do the bytes before it. misbehaved: more than one came with a byte.
enum class Heard { nothing, bytes, descriptor, starved, misbehaved };
Heard hear_from(int socket, Descriptor& passed) noexcept;

struct Peer {
    pid_t pid = 0;  // 0: in a PID namespace that we cannot see
    uid_t uid = 0;
    Descriptor process;  // readable once the process has ended, for poll and EventQueue; none where none can be had
    Descriptor record;   // only then: what the system writes down about it, for has_hung_up alone
    bool ended = false;  // it is gone already
};
Peer identify_peer(int socket);  // SetupError (handshake)

// The two sockets of a pair know no peer but who made them. Who sends can be had with what it sends, from both sides' ask_for_senders
// until they say that it is enough.
struct Sender {
    pid_t pid = -1;  // nothing is known; 0: in a PID namespace that we cannot see
    uid_t uid = 0;
};
inline constexpr std::size_t kSenderSpace = 32;  // bytes of control data that it takes, at most
void ask_for_senders(int socket, bool wanted) noexcept;
void read_sender(const cmsghdr& part, Sender& sender) noexcept;  // if it is in there
Peer identify_sender(int socket, const Sender& sender);          // SetupError (handshake)

// In a forked child.
void disown_process(Descriptor& process) noexcept;

// The peer has hung up, whatever it left unread, or its process (by either descriptor, or -1) has ended. Where poll refuses, as
// it does for a process that has lowered its limit on descriptors, something else is asked: no failure means that it lives.
bool has_hung_up(int socket, int process, int record) noexcept;

// There is something to read, or to accept; or nobody can tell.
bool is_readable(int descriptor) noexcept;

}  // namespace tachyon
