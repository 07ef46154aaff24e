#include "tachyon/socket_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "platform.hpp"
#include "tachyon/error.hpp"
#include "tachyon/wait.hpp"

namespace tachyon {
namespace {

constexpr std::uint64_t kLockPatience = 2000 * kMillisecond;  // it is held for a few system calls

// Listeners that want to replace a stale file in one folder do so one at a time: between another's proof that nobody listens
// and its unlink, a third could have bound the path. A lock on the folder needs no file of its own.
class FolderLock {
  public:
    FolderLock(const std::string& path, const Interrupt& interrupt) {
        const auto slash = path.rfind('/');
        const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
        folder_ = Descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        if (!folder_) {
            if (errno == EMFILE || errno == ENFILE) {
                fail_descriptor(errno, "cannot open the folder of " + path);
            }
            fail_handshake(errno, "cannot open the folder of " + path + ": " + std::strerror(errno));
        }
        const std::uint64_t deadline = now_ns() + kLockPatience;
        while (::flock(folder_.get(), LOCK_EX | LOCK_NB) != 0) {
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
    // Not by closing alone: a child forked meanwhile shares the lock until it closes its copy.
    ~FolderLock() { ::flock(folder_.get(), LOCK_UN); }

  private:
    Descriptor folder_;
};

// Throws unless the path is free or holds a socket that nobody listens on, which it removes.
void remove_stale(const std::string& path, const sockaddr_un& address) {
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0) {
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
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
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

SocketFile::SocketFile(const std::string& path, mode_t mode, const Interrupt& interrupt) : path_(path) {
    const sockaddr_un address = make_address(path);
    socket_ = make_stream_socket();
    const FolderLock lock(path, interrupt);
    remove_stale(path, address);
    if (const int error_number = bind_with_mode(socket_.get(), address, mode); error_number != 0) {
        fail_handshake(error_number, "cannot make the socket " + path + ": " + std::strerror(error_number));
    }
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) {
        fail_handshake(EADDRINUSE, path + " was replaced while it was being made");
    }
    device_ = status.st_dev;
    inode_ = status.st_ino;
    if (::listen(socket_.get(), 64) != 0) {
        const int error_number = errno;
        ::unlink(path.c_str());
        fail_handshake(error_number, "cannot listen on " + path + ": " + std::strerror(error_number));
    }
}

SocketFile::~SocketFile() {
    if (forked_) return;
    struct stat status{};
    if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) {
        ::unlink(path_.c_str());
    }
}

}  // namespace tachyon
