#include "tachyon/rpc.hpp"

#include <new>
#include <utility>

namespace tachyon {

RpcRings adopt_rpc(Established established) {
    const auto connection = std::make_shared<Connection>(std::move(established.connection));
    RpcRings rings;
    rings.calls = std::make_unique<Bus>(connection, std::move(established.segments[0]), Side::connector);
    rings.replies = std::make_unique<Bus>(connection, std::move(established.segments[1]), Side::listener);
    return rings;
}

RpcRings listen_rpc(const std::string& path, ListenOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    return adopt_rpc(listen(path, options, interrupt));
}

RpcRings connect_rpc(const std::string& path, ConnectOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    options.segments = 2;
    return adopt_rpc(connect(path, options, interrupt));
}

// ---- caller --------------------------------------------------------------------------------------------------------------

void Caller::called(std::uint64_t id) noexcept {
    if (id > kMostCallsInFlight) {  // this id takes the place of one that nobody has asked for since
        const std::uint64_t old = id - kMostCallsInFlight;
        switch (window_.state(old)) {
            case CallWindow::State::open: --in_flight_; break;  // its reply will find nobody, and be dropped
            case CallWindow::State::set_aside:
                if (old != held_) forget(aside_.find(old));  // else it is being read, and goes with its release
                break;
            case CallWindow::State::none: break;
        }
    }
    window_.set(id, CallWindow::State::open);
    ++in_flight_;
}

void Caller::forget(std::map<std::uint64_t, Aside>::iterator entry) noexcept {
    window_.set(entry->first, CallWindow::State::none);
    bytes_aside_ -= entry->second.payload.size();
    aside_.erase(entry);
    ++dropped_;
}

// A reply that is not the one waited for.
void Caller::keep_or_drop(const Frame& reply) noexcept {
    const std::uint64_t id = reply.correlation_id;
    if (window_.state(id) != CallWindow::State::open) {  // abandoned, duplicate, or never asked
        ++dropped_;
        return;
    }
    --in_flight_;
    window_.set(id, CallWindow::State::none);
    while (bytes_aside_ + reply.size > kMostBytesSetAside) {
        auto oldest = aside_.begin();
        if (oldest != aside_.end() && oldest->first == held_) ++oldest;  // somebody reads it now
        if (oldest == aside_.end()) break;
        forget(oldest);
    }
    try {
        aside_.insert_or_assign(id, Aside{{reply.payload, reply.payload + reply.size}, reply.type_id});
    } catch (const std::bad_alloc&) {
        ++dropped_;
        return;
    }
    bytes_aside_ += reply.size;
    window_.set(id, CallWindow::State::set_aside);
}

// A reply that is in the way of the one looked for.
void Caller::pass(const Frame& reply) noexcept {
    passed_ += frame_size(reply.size);
    keep_or_drop(reply);
    replies_.release(reply);
}

Status Caller::try_wait(std::uint64_t id, Frame& reply) noexcept {
    unfinished_ = false;
    if (held_ != 0) return Status::claim_open;
    switch (window_.state(id)) {
        case CallWindow::State::none: return Status::unknown_call;
        case CallWindow::State::set_aside: {
            const Aside& aside = aside_.find(id)->second;
            reply = {aside.payload.data(), 0, id, static_cast<std::uint32_t>(aside.payload.size()), aside.type_id};
            held_ = id;
            held_aside_ = true;
            return Status::ok;
        }
        case CallWindow::State::open: break;
    }
    const std::uint64_t before = passed_;
    for (std::uint64_t i = 0; i < kMostRepliesPerLook && passed_ - before < kMostBytesPerLook; ++i) {
        const Status status = replies_.try_peek(reply);
        if (status != Status::ok) return status;
        if (reply.correlation_id == id) {
            window_.set(id, CallWindow::State::none);
            --in_flight_;
            held_ = id;
            held_aside_ = false;
            return Status::ok;
        }
        pass(reply);
    }
    unfinished_ = true;
    return Status::empty;
}

void Caller::release(const Frame& reply) noexcept {
    if (held_ != reply.correlation_id || held_ == 0) return;
    if (held_aside_) {
        if (const auto entry = aside_.find(held_); entry != aside_.end()) {
            forget(entry);
            --dropped_;  // it was read
        }
    } else {
        replies_.release(reply);
    }
    held_ = 0;
}

void Caller::gather() noexcept {
    unfinished_ = false;
    if (held_ != 0 && !held_aside_) return;  // later frames cannot be freed before the one that is held
    Frame reply;
    const std::uint64_t before = passed_;
    std::uint64_t count = 0;
    while (!unfinished_ && replies_.try_peek(reply) == Status::ok) {
        pass(reply);
        unfinished_ = ++count == kMostRepliesPerLook || passed_ - before >= kMostBytesPerLook;
    }
    replies_.hand_back();
}

bool Caller::cancel(std::uint64_t id) noexcept {
    switch (window_.state(id)) {
        case CallWindow::State::none: return false;
        case CallWindow::State::open:
            window_.set(id, CallWindow::State::none);
            --in_flight_;
            return true;
        case CallWindow::State::set_aside:
            if (held_ == id) return false;
            forget(aside_.find(id));
            return true;
    }
    return false;
}

// ---- callee --------------------------------------------------------------------------------------------------------------

Status Callee::try_serve(Frame& call) noexcept {
    const Status status = calls_.try_peek(call);
    if (status != Status::ok) return status;
    if (call.correlation_id != window_.newest() + 1) return calls_.poison();
    window_.set(call.correlation_id, CallWindow::State::open);
    return Status::ok;
}

}  // namespace tachyon
