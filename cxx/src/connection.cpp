#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tachyon/handshake.hpp"
#include "tachyon/socket_file.hpp"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

namespace tachyon {

Connection::Connection(Descriptor socket, Side side) : socket_(std::move(socket)), side_(side) {
    ucred credentials{};
    socklen_t length = sizeof credentials;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
        fail_handshake(errno, std::string("cannot learn who the peer is: ") + std::strerror(errno));
    }
    peer_pid_ = credentials.pid;
    peer_uid_ = credentials.uid;
    // The socket's own pidfd cannot be of another process that got the same pid; older kernels (< 6.5) have only the pid.
    int number = -1;
    length = sizeof number;
    if (::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERPIDFD, &number, &length) != 0) {
        if (errno != EMFILE && peer_pid_ > 0) number = static_cast<int>(::syscall(SYS_pidfd_open, peer_pid_, 0));
        if (number < 0 && (errno == EMFILE || errno == ENFILE)) {
            fail_handshake(errno, std::string("cannot watch the peer: ") + std::strerror(errno) +
                                      "; close some descriptors or raise `ulimit -n`");
        }
    }
    process_ = Descriptor(number);  // where none can be had, the socket is all we have
}

bool Connection::hung_up() const noexcept {
    if (!socket_) return true;
    // Hang-up is reported whether or not the peer left bytes in the socket.
    std::array<pollfd, 2> entries{{{socket_.get(), POLLRDHUP, 0}, {process_.get(), POLLIN, 0}}};
    return ::poll(entries.data(), entries.size(), 0) > 0;
}

void Connection::ring() const noexcept {
    // Refused when the peer has left so many unread that it will look in any case.
    if (socket_) ::send(socket_.get(), &kRing, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Connection::hear() const noexcept {
    std::array<char, 256> bytes;
    if (socket_) (void)::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
}

void Connection::shut_down() noexcept {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    abandon();
}

void Connection::abandon() noexcept {
    socket_.reset();
    process_.reset();
}

}  // namespace tachyon
