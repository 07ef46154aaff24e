// Linux: pidfds, or what else is left to see a process end by.
#include <fcntl.h>
#include <poll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "platform/sockets.hpp"
#include "tachyon/error.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tachyon {

namespace {

// select goes by the table of open files, where poll goes by RLIMIT_NOFILE: even with a limit of 0 it answers.
bool is_readable_by_select(int descriptor) noexcept {
    constexpr int kBits = 8 * sizeof(unsigned long);
    const auto words = static_cast<std::size_t>(descriptor / kBits) + 1;  // a fd_set ends at 1024
    const std::unique_ptr<unsigned long[]> bits(new (std::nothrow) unsigned long[words]());
    if (!bits) return true;
    for (;;) {
        bits[words - 1] = 1ul << (descriptor % kBits);
        timeval at_once{};
        const int count = ::select(descriptor + 1, reinterpret_cast<fd_set*>(bits.get()), nullptr, nullptr, &at_once);
        if (count >= 0 || errno != EINTR) return count != 0;
    }
}

// An empty send fails once nobody is left to read, whatever may still be read here.
bool has_hung_up_by_other_means(int socket, int process) noexcept {
    if (::send(socket, "", 0, kSend) < 0 && errno != EAGAIN && errno != EINTR) return true;
    return process >= 0 && is_readable_by_select(process);
}

// /proc/PID/stat, "PID (name) state …", is of that process for ever, whoever gets its number. A process whose first thread has
// ended before the others looks like a zombie too, but has more than one thread, field 20.
Descriptor open_record(pid_t pid) {
    return Descriptor(::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC));
}

bool has_ended(int record) noexcept {
    std::array<char, 1024> text;
    const ssize_t n = ::pread(record, text.data(), text.size(), 0);
    if (n < 0) return errno != EINTR && errno != ENOMEM;  // ESRCH: it has been reaped
    std::string_view rest(text.data(), static_cast<std::size_t>(n));
    rest.remove_prefix(std::min(rest.size(), rest.rfind(')') + 2));  // a name may have anything in it
    if (rest.empty()) return true;
    if (rest[0] != 'Z' && rest[0] != 'X') return false;
    for (int field = 3; field < 20; ++field) rest.remove_prefix(std::min(rest.size(), rest.find(' ') + 1));
    return rest.substr(0, rest.find(' ')) == "1";
}

bool starved() noexcept { return errno == EMFILE || errno == ENFILE; }

// By its number, which may belong to another one by now.
Peer watch_process(pid_t pid, uid_t uid) {
    Peer peer{pid, uid, {}, {}};
    if (pid <= 0) return peer;
    peer.process = Descriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (peer.process) return peer;
    peer.ended = errno == ESRCH;
    if (peer.ended) return peer;
    if (!starved()) peer.record = open_record(pid);  // a sandbox may forbid both of the above
    if (peer.record) return peer;
    if (starved()) fail_descriptor(errno, "cannot watch the peer");
    peer.ended = ::kill(pid, 0) != 0 && errno == ESRCH;
    return peer;
}

}  // namespace

Peer identify_peer(int socket) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    // The socket's own pidfd cannot be of another process that got the same pid; older kernels (< 6.5) have only the pid.
    Peer peer{credentials.pid, credentials.uid, {}, {}};
    int number = -1;
    length = sizeof number;
    if (::getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &number, &length) == 0) {
        peer.process = Descriptor(number);
        return peer;
    }
    if (errno == ESRCH || errno == EINVAL) {  // the kernel knows the question: there is no such process any more
        peer.ended = true;
        return peer;
    }
    if (starved()) fail_descriptor(errno, "cannot watch the peer");
    return watch_process(credentials.pid, credentials.uid);
}

static_assert(CMSG_SPACE(sizeof(ucred)) <= kSenderSpace);

void ask_for_senders(int socket, bool wanted) noexcept {
    const int value = wanted ? 1 : 0;
    ::setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &value, sizeof value);
}

void read_sender(const cmsghdr& part, Sender& sender) noexcept {
    if (part.cmsg_level != SOL_SOCKET || part.cmsg_type != SCM_CREDENTIALS) return;
    ucred credentials{};
    if (part.cmsg_len < CMSG_LEN(sizeof credentials)) return;
    std::memcpy(&credentials, CMSG_DATA(&part), sizeof credentials);
    sender = {credentials.pid, credentials.uid};
}

Peer identify_sender(int socket, const Sender& sender) {
    return sender.pid < 0 ? identify_peer(socket) : watch_process(sender.pid, sender.uid);
}

void disown_process(Descriptor& process) noexcept { process.reset(); }

bool has_hung_up(int socket, int process, int record) noexcept {
    // Hang-up is reported whether or not the peer left bytes in the socket.
    std::array<pollfd, 2> entries{{{socket, POLLRDHUP, 0}, {process, POLLIN, 0}}};
    const int count = ::poll(entries.data(), entries.size(), 0);
    if (count > 0 || (count < 0 && has_hung_up_by_other_means(socket, process))) return true;
    return record >= 0 && has_ended(record);
}

bool is_readable(int descriptor) noexcept {
    pollfd entry{descriptor, POLLIN, 0};
    const int count = ::poll(&entry, 1, 0);
    return count < 0 ? is_readable_by_select(descriptor) : count > 0;
}

}  // namespace tachyon
