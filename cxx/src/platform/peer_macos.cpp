// macOS: LOCAL_PEERPID, and a kqueue that sees a process end. Weaker than on Linux: a process is watched by its pid, which may
// have been given to another one already.
#include <poll.h>
#include <sys/event.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "platform/macos.hpp"
#include "platform/sockets.hpp"
#include "tachyon/error.hpp"

namespace tachyon {

Peer identify_peer(int socket) {
    Peer peer;
    gid_t group = 0;
    if (::getpeereid(socket, &peer.uid, &group) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    socklen_t length = sizeof peer.pid;
    if (::getsockopt(socket, SOL_LOCAL, LOCAL_PEERPID, &peer.pid, &length) != 0) peer.pid = 0;
    if (peer.pid <= 0) return peer;
    // A queue with one event that is never taken out stays readable from then on.
    peer.process = Descriptor(::kqueue());
    if (!peer.process) fail_descriptor(errno, "cannot watch the peer");
    set_cloexec(peer.process.get());
    struct kevent exit{};
    EV_SET(&exit, peer.pid, EVFILT_PROC, EV_ADD, NOTE_EXIT, 0, nullptr);
    if (::kevent(peer.process.get(), &exit, 1, nullptr, 0, nullptr) != 0) {
        peer.ended = errno == ESRCH;
        peer.process.reset();
    }
    return peer;
}

// LOCAL_PEERPID is who used the other socket last, whoever made it (bsd/kern/uipc_usrreq.c).
void ask_for_senders(int, bool) noexcept {}
void read_sender(const cmsghdr&, Sender&) noexcept {}
Peer identify_sender(int socket, const Sender&) { return identify_peer(socket); }

// A child has no copy of a kqueue: its number may be another's there (bsd/kern/kern_event.c).
void disown_process(Descriptor& process) noexcept { process.forget(); }

bool has_hung_up(int socket, int process, int) noexcept {
    // Without an event asked for, poll would not look at the socket at all (poll_nocancel in bsd/kern/sys_generic.c).
    std::array<pollfd, 2> entries{{{socket, POLLHUP, 0}, {process, POLLIN, 0}}};
    const int count = ::poll(entries.data(), entries.size(), 0);
    if (count < 0) return errno != EINTR && errno != EAGAIN;
    return count > 0 && ((entries[0].revents & (POLLHUP | POLLERR | POLLNVAL)) != 0 || entries[1].revents != 0);
}

bool is_readable(int descriptor) noexcept {
    pollfd entry{descriptor, POLLIN, 0};
    return ::poll(&entry, 1, 0) != 0;
}

}  // namespace tachyon
