#include "tachyon/link/socket_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "platform/sockets.hpp"
#include "tachyon/error.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {
namespace {

constexpr int kQueue = 4096;  // who waits to be accepted: as many as the system lets, which may be fewer
constexpr std::uint64_t kLockPatience = 2000 * kMillisecond;  // it is held for a few system calls

// Listeners that want to replace a stale file in one folder do so one at a time: between another's proof that nobody listens
// and its unlink, a third could have bound the path. A lock on the folder needs no file of its own.
class FolderLock {
  public:
    FolderLock(int folder, const std::string& path, const Interrupt& interrupt) : folder_(folder) {
        const std::uint64_t deadline = now_ns() + kLockPatience;
        while (::flock(folder_, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK && errno != EINTR) {
                fail_handshake(errno, "cannot lock the folder of " + path + ": " + std::strerror(errno));
            }
            if (interrupt()) throw SetupError(SetupFailure::interrupted, EINTR, "interrupted");
            if (now_ns() > deadline) {
                fail_handshake(EBUSY, "somebody keeps the folder of " + path + " locked; choose another folder");
            }
            const timespec pause{0, 1'000'000};
            ::nanosleep(&pause, nullptr);
        }
    }

    FolderLock(const FolderLock&) = delete;
    FolderLock& operator=(const FolderLock&) = delete;
    ~FolderLock() { ::flock(folder_, LOCK_UN); }

  private:
    int folder_;
};

std::string name_in(const std::string& path) { return path.substr(path.rfind('/') + 1); }

Descriptor open_folder(const std::string& path) {
    const auto slash = path.rfind('/');
    const std::string name = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    Descriptor folder(::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder) {
        if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "cannot open the folder of " + path);
        fail_handshake(errno, "cannot open the folder of " + path + ": " + std::strerror(errno));
    }
    return folder;
}

bool look_at(int folder, const std::string& name, struct stat& status) {
    return ::fstatat(folder, name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0;
}

// Throws unless the path is free or holds a socket that nobody listens on, which it removes.
void remove_stale(int folder, const std::string& path, const sockaddr_un& address) {
    const std::string name = name_in(path);
    struct stat status{};
    if (!look_at(folder, name, status)) {
        if (errno == ENOENT) return;
        fail_handshake(errno, "cannot look at " + path + ": " + std::strerror(errno));
    }
    if (!S_ISSOCK(status.st_mode)) {
        fail_handshake(EADDRINUSE, path + " exists and is not a socket; it was left alone, choose another path");
    }
    const Descriptor probe = make_stream_socket();
    const int rc = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    if (rc == 0 || errno == EAGAIN) {  // EAGAIN: its queue is full
        fail_handshake(EADDRINUSE, "another process listens on " + path + "; choose another path or stop it");
    }
    if (errno != ECONNREFUSED) {
        fail_handshake(EADDRINUSE, path + " is a socket that cannot be proven stale (" + std::strerror(errno) +
                                       "); it was left alone, remove it yourself or choose another path");
    }
    if (::unlinkat(folder, name.c_str(), 0) != 0 && errno != ENOENT) {
        fail_handshake(errno, "cannot remove the stale socket " + path + ": " + std::strerror(errno));
    }
}

}  // namespace

sockaddr_un make_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty()) fail_handshake(EINVAL, "the socket path is empty");
    if (path.find('\0') != std::string::npos) fail_handshake(EINVAL, "the socket path has a NUL byte in it");
    if (path.size() >= sizeof address.sun_path) {
        fail_handshake(ENAMETOOLONG, "the socket path has " + std::to_string(path.size()) +
                                         " bytes; a UNIX address holds " + std::to_string(sizeof address.sun_path - 1) +
                                         ": " + path);
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Descriptor make_stream_socket() {
    Descriptor socket = open_stream_socket();
    if (!socket) fail_descriptor(errno, "cannot make a socket");
    return socket;
}

SocketFile::SocketFile(const std::string& path, mode_t mode, const Interrupt& interrupt) : name_(name_in(path)) {
    const sockaddr_un address = make_address(path);
    socket_ = make_stream_socket();
    folder_ = open_folder(path);
    const FolderLock lock(folder_.get(), path, interrupt);
    remove_stale(folder_.get(), path, address);
    if (const int error_number = bind_with_mode(socket_.get(), address, mode); error_number != 0) {
        fail_handshake(error_number, "cannot make the socket " + path + ": " + std::strerror(error_number));
    }
    struct stat status{};
    if (!look_at(folder_.get(), name_, status) || !S_ISSOCK(status.st_mode)) {
        fail_handshake(EADDRINUSE, path + " was replaced while it was being made");
    }
    device_ = status.st_dev;
    inode_ = status.st_ino;
    if (::listen(socket_.get(), kQueue) != 0) {
        const int error_number = errno;
        remove();
        fail_handshake(error_number, "cannot listen on " + path + ": " + std::strerror(error_number));
    }
}

SocketFile::~SocketFile() {
    if (!forked_) remove();
}

void SocketFile::remove() const noexcept {
    struct stat status{};
    if (look_at(folder_.get(), name_, status) && status.st_dev == device_ && status.st_ino == inode_) {
        ::unlinkat(folder_.get(), name_.c_str(), 0);
    }
}

}  // namespace tachyon
