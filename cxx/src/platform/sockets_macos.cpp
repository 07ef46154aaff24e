// macOS: a socket file with the mode that it should have; every name is a file's. Weaker than on Linux: a listener whose queue is
// full refuses like one that is gone (bsd/kern/uipc_usrreq.c), so that a socket file with about a hundred clients waiting can be
// taken for a stale one.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>

#include "platform/macos.hpp"
#include "platform/sockets.hpp"

namespace tachyon {

const int kSend = MSG_DONTWAIT;
const int kReceive = MSG_DONTWAIT;

namespace {

// Between the call that made it and these, a fork in another thread can leave a copy with a child: there is no atomic way.
Descriptor make_ours(int number) noexcept {
    Descriptor socket(number);
    if (!socket) return socket;
    set_cloexec(number);
    const int yes = 1;
    ::setsockopt(number, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
    ::fcntl(number, F_SETFL, ::fcntl(number, F_GETFL) | O_NONBLOCK);
    return socket;
}

}  // namespace

Descriptor open_stream_socket() noexcept { return make_ours(::socket(AF_UNIX, SOCK_STREAM, 0)); }

Descriptor accept_stream_socket(int listener) noexcept { return make_ours(::accept(listener, nullptr, nullptr)); }

bool open_socket_pair(Descriptor& one, Descriptor& other) noexcept {
    std::array<int, 2> numbers{};
    if (::socketpair(AF_UNIX, SOCK_STREAM, 0, numbers.data()) != 0) return false;
    one = make_ours(numbers[0]);
    other = make_ours(numbers[1]);
    return true;
}

int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode) {
    // The umask is the whole process's, and there is no other way: what other threads make meanwhile has no more than this.
    const mode_t before = ::umask(~mode & 0777);
    const int rc = ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    const int error_number = errno;
    ::umask(before);
    return rc == 0 ? 0 : error_number;
}

Descriptor own_received(int number) noexcept {
    set_cloexec(number);
    return Descriptor(number);
}

// No descriptor comes or goes: memory_macos.cpp has no parcels. One that is passed all the same is dropped by a plain recv.
int pass_descriptor(int, char, int) noexcept { return ENOTSUP; }

Heard hear_from(int socket, Descriptor&) noexcept {
    std::array<char, 256> bytes;
    return ::recv(socket, bytes.data(), bytes.size(), MSG_DONTWAIT) > 0 ? Heard::bytes : Heard::nothing;
}

void name_connector(int) noexcept {}  // every name is a file's

}  // namespace tachyon
