#include <sys/socket.h>

#include <array>

#include "platform.hpp"
#include "tachyon/handshake.hpp"

namespace tachyon {

Connection::Connection(Descriptor socket, Side side) : socket_(std::move(socket)), side_(side) {
    Peer peer = identify_peer(socket_.get());
    peer_pid_ = peer.pid;
    peer_uid_ = peer.uid;
    process_ = std::move(peer.process);  // where none can be had, the socket is all we have
}

bool Connection::hung_up() const noexcept { return !socket_ || has_hung_up(socket_.get(), process_.get()); }

void Connection::ring() const noexcept {
    // Refused when the peer has left so many unread that it will look in any case.
    if (socket_) ::send(socket_.get(), &kRing, 1, kSend);
}

void Connection::hear() const noexcept {
    std::array<char, 256> bytes;
    if (socket_) (void)::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
}

void Connection::shut_down() noexcept {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    socket_.reset();
    process_.reset();
}

void Connection::abandon() noexcept {
    socket_.reset();
    disown_process(process_);
}

}  // namespace tachyon
