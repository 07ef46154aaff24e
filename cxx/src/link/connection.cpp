#include <sys/socket.h>

#include <array>

#include "platform/sockets.hpp"
#include "tachyon/link/handshake.hpp"

namespace tachyon {

Connection::Connection(Descriptor socket, Side side) : socket_(std::move(socket)), side_(side) {
    know(identify_peer(socket_.get()));
}

void Connection::recognize(const Sender& sender) { know(identify_sender(socket_.get(), sender)); }

void Connection::know(Peer&& peer) noexcept {
    peer_pid_ = peer.pid;
    peer_uid_ = peer.uid;
    process_ = std::move(peer.process);
    record_ = std::move(peer.record);  // where neither can be had, the socket is all we have
    ended_ = peer.ended;
}

Connection::Connection(Connection&& other) noexcept { *this = std::move(other); }

Connection& Connection::operator=(Connection&& other) noexcept {
    socket_ = std::move(other.socket_);
    process_ = std::move(other.process_);
    record_ = std::move(other.record_);
    ended_ = other.ended_;
    peer_pid_ = other.peer_pid_;
    peer_uid_ = other.peer_uid_;
    side_ = other.side_;
    barrier_ = other.barrier_;
    return *this;
}

bool Connection::hung_up() const noexcept {
    return !socket_ || ended_ || has_hung_up(socket_.get(), process_.get(), record_.get());
}

void Connection::knock() const noexcept {
    // Refused when the peer has left so many unread that it will look in any case.
    if (socket_) ::send(socket_.get(), &kKnock, 1, kSend);
}

void Connection::hear() const noexcept {
    std::array<char, 256> bytes;
    if (socket_) (void)::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
}

void Connection::shut_down() noexcept {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    socket_.reset();
    process_.reset();
    record_.reset();
}

void Connection::abandon() noexcept {
    socket_.reset();
    disown_process(process_);
    record_.reset();
}

}  // namespace tachyon
