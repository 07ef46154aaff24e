// Linux: abstract addresses, and a socket file with the mode that it should have.
#include <pthread.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "platform/sockets.hpp"
#include "tachyon/link/hello.hpp"

namespace tachyon {

const int kSend = MSG_NOSIGNAL | MSG_DONTWAIT;
const int kReceive = MSG_CMSG_CLOEXEC | MSG_DONTWAIT;

Descriptor open_stream_socket() noexcept {
    return Descriptor(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

Descriptor accept_stream_socket(int listener) noexcept {
    return Descriptor(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

bool open_socket_pair(Descriptor& one, Descriptor& other) noexcept {
    std::array<int, 2> numbers{};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, numbers.data()) != 0) return false;
    one = Descriptor(numbers[0]);
    other = Descriptor(numbers[1]);
    return true;
}

namespace {

struct Binding {
    int socket;
    const sockaddr_un& address;
    int error_number = 0;
};

int bind_without_umask(void* argument) {
    auto& binding = *static_cast<Binding*>(argument);
    ::umask(0);
    const auto* const address = reinterpret_cast<const sockaddr*>(&binding.address);
    if (::bind(binding.socket, address, sizeof binding.address) != 0) binding.error_number = errno;
    return 0;
}

bool umask_takes_from(mode_t mode) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        unsigned mask = 0;
        if (std::sscanf(line.c_str(), "Umask: %o", &mask) == 1) return (mode & mask) != 0;
    }
    return true;
}

}  // namespace

int bind_with_mode(int socket, const sockaddr_un& address, mode_t mode) {
    if (::fchmod(socket, mode) != 0) return errno;  // what bind gives the file, less the umask
    Binding binding{socket, address};
    if (!umask_takes_from(mode)) {
        return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
    }
    // The umask is the whole process's. A child that shares all but that, and the current folder, has one of its own. As vfork,
    // it runs alone until it ends; it has no exit signal, so that nobody else's wait() finds it.
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    alignas(16) std::array<char, 65536> stack;
    const pid_t child =
        ::clone(bind_without_umask, stack.data() + stack.size(), CLONE_VM | CLONE_VFORK | CLONE_FILES, &binding);
    int status = -1;
    if (child < 0) {
        binding.error_number = errno;
    } else if (::waitpid(child, &status, __WCLONE) != child || status != 0) {
        binding.error_number = ECHILD;  // it was killed
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return binding.error_number;
}

Descriptor own_received(int number) noexcept { return Descriptor(number); }

int pass_descriptor(int socket, char byte, int descriptor) noexcept {
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec part{&byte, 1};
    msghdr message = message_of(part, {});
    attach_descriptors(message, control, {&descriptor, 1});
    for (;;) {
        if (::sendmsg(socket, &message, kSend) == 1) return 0;
        if (errno != EINTR) return errno;
    }
}

// A look first, which leaves a copy of the descriptor here: what cannot be taken must not be lost. unix_stream_read_generic goes
// past no descriptor, whether it looks or takes.
Heard hear_from(int socket, Descriptor& passed) noexcept {
    constexpr std::size_t kMostPassed = 253;  // SCM_MAX_FD; only so many can be told from one that found no number
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * kMostPassed)> control;
    std::array<char, 256> bytes;
    iovec part{bytes.data(), bytes.size()};
    msghdr message = message_of(part, control);
    const ssize_t n = ::recvmsg(socket, &message, kReceive | MSG_PEEK);
    if (n <= 0) return Heard::nothing;
    std::size_t count = 0;
    for (cmsghdr* rights = CMSG_FIRSTHDR(&message); rights != nullptr; rights = CMSG_NXTHDR(&message, rights)) {
        if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS) continue;
        for (std::size_t at = 0; at < rights->cmsg_len - CMSG_LEN(0); at += sizeof(int), ++count) {
            int number = -1;
            std::memcpy(&number, CMSG_DATA(rights) + at, sizeof number);
            passed = Descriptor(number);
        }
    }
    const bool truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    if (truncated && count == 0) return Heard::starved;
    (void)::recv(socket, bytes.data(), static_cast<std::size_t>(n), MSG_DONTWAIT);
    if (count == 0) return Heard::bytes;
    if (count == 1 && !truncated) return Heard::descriptor;
    passed.reset();
    return Heard::misbehaved;
}

void name_connector(int socket) noexcept {
    // Not std::random_device: where that opens a file, it throws when there are no descriptors left.
    std::array<unsigned, 2> random{};
    (void)::getentropy(random.data(), sizeof random);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, kConnectorName.data(), kConnectorName.size());
    const int digits =
        std::snprintf(address.sun_path + kConnectorName.size(), sizeof address.sun_path - kConnectorName.size(),
                      "%d-%08x%08x", ::getpid(), random[0], random[1]);
    const auto length = offsetof(sockaddr_un, sun_path) + kConnectorName.size() + static_cast<std::size_t>(digits);
    // Without a name the handshake works all the same; it only tells the listener less.
    (void)::bind(socket, reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(length));
}

}  // namespace tachyon
