// Purpose: a listening UNIX socket at a path in the file system: made without harm to whatever stands there, gone afterwards.
// Threads: one at a time. Lifetime: the file is removed by the destructor, if it is still the one that was made; not in a
//   forked child, where the socket is closed at once.
//
// Looked at and removed is a name in the folder that was opened in the beginning, whatever becomes of the path to it. Between a
// look and a removal somebody may put another file under that name, and that one is removed instead. Who may do so may remove
// it all the same: in a sticky folder, such as /tmp, only our user, the folder's owner and root may take our file from its name.
// The path that leads to the folder has to be trusted while the file is being made: bind() and the question who listens there
// go by it.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>

#include <cstdint>
#include <string>

#include "tachyon/link/descriptor.hpp"
#include "tachyon/link/fork.hpp"

namespace tachyon {

struct Interrupt;

class SocketFile {
  public:
    // Binds and listens. A socket that nobody listens on is replaced (only a refused connection proves that); anything else at
    // the path is left alone. SetupError (handshake).
    SocketFile(const std::string& path, mode_t mode, const Interrupt& interrupt);
    SocketFile(const SocketFile&) = delete;
    SocketFile& operator=(const SocketFile&) = delete;
    ~SocketFile();

    [[nodiscard]] int descriptor() const noexcept { return socket_.get(); }
    [[nodiscard]] bool forked() const noexcept { return forked_; }

  private:
    void disown() noexcept {
        forked_ = true;
        socket_.reset();
        folder_.reset();
    }
    void remove() const noexcept;

    std::string name_;
    Descriptor folder_;
    Descriptor socket_;
    dev_t device_ = 0;
    ino_t inode_ = 0;
    bool forked_ = false;
    ForkNode fork_node_{this, [](void* file) noexcept { static_cast<SocketFile*>(file)->disown(); }};
};

// SetupError (handshake) unless the path is not empty, has no NUL, and is short enough for a UNIX address.
sockaddr_un make_address(const std::string& path);

Descriptor make_stream_socket();  // non-blocking, close-on-exec

}  // namespace tachyon
