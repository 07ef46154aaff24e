#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "platform/sockets.hpp"
#include "tachyon/error.hpp"
#include "tachyon/link/handshake.hpp"

namespace tachyon {

Connection::Connection(Descriptor socket, Side side) : socket_(std::move(socket)), side_(side) {
    know(identify_peer(socket_.get()));
}

void Connection::recognize(const Sender& sender) { know(identify_sender(socket_.get(), sender)); }

void Connection::know(Peer&& peer) {
    if (inbox_ == nullptr) inbox_ = std::make_unique<Inbox>();
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
    bell_ = std::move(other.bell_);
    rings_at_ = other.rings_at_;
    peer_pid_ = other.peer_pid_;
    peer_uid_ = other.peer_uid_;
    side_ = other.side_;
    barrier_ = other.barrier_;
    max_large_ = other.max_large_;
    inbox_ = std::move(other.inbox_);
    return *this;
}

bool Connection::hung_up() const noexcept {
    return !socket_ || ended_ || has_hung_up(socket_.get(), process_.get(), record_.get());
}

void Connection::knock() const noexcept {
    // Refused when the peer has left so many unread that it will look in any case.
    if (socket_) ::send(socket_.get(), &kKnock, 1, kSend);
}

bool Connection::hear() const noexcept { return socket_ && inbox_->hear(socket_.get()); }

int Connection::pass(int descriptor) const noexcept {
    return socket_ ? pass_descriptor(socket_.get(), kPassed, descriptor) : EPIPE;
}

Status Connection::first_passed(int& descriptor) const noexcept {
    return socket_ ? inbox_->first(socket_.get(), descriptor) : Status::empty;
}

void Connection::drop_first_passed() const noexcept {
    if (socket_) inbox_->drop_first();
}

// ---- the bell ------------------------------------------------------------------------------------------------------------

int Connection::bell() {
    if (bell_ == nullptr) {
        auto bell = std::make_unique<EventQueue>("watch a peer");
        bell->set_timer(kNever);  // later ones cannot fail
        for (const int descriptor : {socket_.get(), process_.get()}) {
            const int error_number = descriptor < 0 ? 0 : bell->add(descriptor, this);
            if (error_number != 0) fail_descriptor(error_number, "cannot watch a peer");
        }
        bell_ = std::move(bell);
    }
    return bell_->descriptor();
}

void Connection::ring_by(std::uint64_t time) {
    if (time >= rings_at_) return;
    rings_at_ = time;
    bell_->set_timer(time);
}

bool Connection::hush(bool& knocked) {
    knocked = hear();
    if (!knocked && hung_up()) ended_ = true;
    if (ended_ || bell_ == nullptr) return !ended_;
    if (rings_at_ != kNever && now_ns() >= rings_at_) {
        rings_at_ = kNever;
        bell_->set_timer(kNever);
    }
    bell_->forget_past();
    return true;
}

// ---- its end -------------------------------------------------------------------------------------------------------------

void Connection::shut_down() noexcept {
    if (socket_) ::shutdown(socket_.get(), SHUT_RDWR);
    bell_.reset();
    socket_.reset();
    process_.reset();
    record_.reset();
}

void Connection::abandon() noexcept {
    if (bell_ != nullptr) bell_->disown();  // the kernel's list is one for both processes
    if (inbox_) inbox_->abandon();
    socket_.reset();
    disown_process(process_);
    record_.reset();
}

}  // namespace tachyon
