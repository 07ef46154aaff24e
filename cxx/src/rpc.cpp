#include "tachyon/rpc.hpp"

#include <algorithm>
#include <new>
#include <utility>

namespace tachyon {

RpcRings adopt_rpc(Established established) {
    return set_up([&] {
        const auto connection = std::make_shared<Connection>(std::move(established.connection));
        const auto ring = [&](std::size_t index, Side producer) {
            return std::make_unique<Bus>(connection, RingSegment(std::move(established.segments[index])), producer);
        };
        RpcRings rings;
        rings.calls = ring(0, Side::connector);
        rings.replies = ring(1, Side::listener);
        return rings;
    });
}

RpcRings listen_rpc(const std::string& path, ListenOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    return adopt_rpc(listen(path, options, interrupt));
}

RpcRings connect_rpc(const std::string& path, ConnectOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    return adopt_rpc(connect(path, options, interrupt));
}

RpcRings listen_rpc(Descriptor socket, ListenOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    return adopt_rpc(Meeting(std::move(socket), options).meet(options.deadline, interrupt));
}

RpcRings connect_rpc(Descriptor socket, ConnectOptions options, const Interrupt& interrupt) {
    options.kind = Kind::rpc;
    return adopt_rpc(
        Meeting(std::move(socket), options).meet(options.deadline != 0 ? options.deadline : kNever, interrupt));
}

// ---- caller --------------------------------------------------------------------------------------------------------------

void Caller::called(std::uint64_t id) noexcept {
    if (id > kMostCallsInFlight) {  // this id takes the place of one that nobody has asked for since
        const std::uint64_t old = id - kMostCallsInFlight;
        switch (window_.state(old)) {
            case CallWindow::State::open: --in_flight_; break;  // its reply will find nobody, and be dropped
            case CallWindow::State::set_aside: forget(aside_.find(old)); break;
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
        const auto oldest = std::ranges::find_if(aside_, [](const auto& each) { return !each.second.held; });
        if (oldest == aside_.end()) break;
        forget(oldest);
    }
    try {
        aside_.insert_or_assign(id, Aside{Copy(reply), reply.type_id, false});
    } catch (const std::bad_alloc&) {
        ++dropped_;
        return;
    }
    bytes_aside_ += reply.size;
    window_.set(id, CallWindow::State::set_aside);
}

// A reply that is in the way of the one looked for.
void Caller::pass(const Frame& reply) noexcept {
    passed_ += replies_.ring_bytes(reply);
    gone_through_ += frame_size(reply.size);
    keep_or_drop(reply);
    replies_.release(reply);
}

Status Caller::try_wait(std::uint64_t id, Frame& reply) noexcept {
    unfinished_ = false;
    switch (window_.state(id)) {
        case CallWindow::State::none: return Status::unknown_call;
        case CallWindow::State::set_aside: {
            Aside& aside = aside_.find(id)->second;
            reply = {aside.payload.data(), kNotInRing, id, aside.payload.size(), aside.type_id};
            aside.held = true;
            window_.set(id, CallWindow::State::none);
            return Status::ok;
        }
        case CallWindow::State::open: break;
    }
    const std::uint64_t before = gone_through_;
    for (std::uint64_t i = 0; i < kMostRepliesPerLook && gone_through_ - before < kMostBytesPerLook; ++i) {
        const Status status = replies_.try_peek(reply);
        if (status != Status::ok) return status;
        if (reply.correlation_id == id) {
            window_.set(id, CallWindow::State::none);
            --in_flight_;
            return Status::ok;
        }
        pass(reply);
    }
    unfinished_ = true;
    return Status::empty;
}

Status Caller::try_next(Frame& reply) noexcept {
    for (std::uint64_t i = 0; i < kMostRepliesPerLook; ++i) {
        const Status status = replies_.try_peek(reply);
        if (status != Status::ok || window_.state(reply.correlation_id) == CallWindow::State::open) return status;
        pass(reply);
    }
    return Status::empty;
}

void Caller::take(const Frame& reply) noexcept {
    passed_ += frame_size(reply.size);
    window_.set(reply.correlation_id, CallWindow::State::none);
    --in_flight_;
}

void Caller::release(const Frame& reply) noexcept {
    if (reply.position != kNotInRing) {
        replies_.release_and_tell(reply);
        return;
    }
    const auto entry = aside_.find(reply.correlation_id);
    if (entry == aside_.end() || !entry->second.held) return;
    bytes_aside_ -= entry->second.payload.size();
    aside_.erase(entry);
}

void Caller::gather() noexcept {
    unfinished_ = false;
    Frame reply;
    const std::uint64_t before = gone_through_;
    std::uint64_t count = 0;
    while (!unfinished_ && replies_.try_peek(reply) == Status::ok) {
        pass(reply);
        unfinished_ = ++count == kMostRepliesPerLook || gone_through_ - before >= kMostBytesPerLook;
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
        case CallWindow::State::set_aside: forget(aside_.find(id)); return true;
    }
    return false;
}

std::uint64_t Caller::prepare_for_room(std::uint64_t until) noexcept {
    gather_meanwhile();
    if (in_flight_ == 0) return until;
    return std::min(until, now_ns() + (unfinished_ ? 0 : kGatherEvery));
}

Reply::Reply(Caller& caller, std::uint64_t id) noexcept : caller_(caller), id_(id), before_(caller.passed()) {}

Status Reply::try_peek(Frame& reply) noexcept { return caller_.try_wait(id_, reply); }
void Reply::let_go(const Frame& reply) noexcept { caller_.release(reply); }
bool Reply::look_for_frame(std::uint64_t looks) noexcept { return caller_.replies_.spin_readable(looks); }
void Reply::prepare_for_frame() noexcept { caller_.replies_.prepare_wait(); }
Status Reply::sleep_for_frame(std::uint64_t until) noexcept { return caller_.replies_.wait_beside(until); }

// The last look stopped before it had seen everything that was there when this was made. A reply that was is found even if the
// time is over. Not more: a callee may be faster than we are.
bool Reply::unfinished() const noexcept {
    return caller_.unfinished() && caller_.passed() - before_ < caller_.replies_.capacity();
}

// ---- callee --------------------------------------------------------------------------------------------------------------

Status Callee::try_serve(Frame& call) noexcept {
    const Status status = calls_.try_peek(call);
    if (status != Status::ok) return status;
    if (call.correlation_id != window_.newest() + 1) return calls_.poison();
    window_.set(call.correlation_id, CallWindow::State::open);
    return Status::ok;
}

Status Answer::try_send(const void* data, std::uint64_t size, std::uint32_t msg_type) noexcept {
    return callee_.try_reply(id_, data, size, msg_type);
}

Status Answer::try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept {
    return callee_.can_reply(id_) ? callee_.replies_.try_claim(size, payload) : Status::unknown_call;
}

Status Answer::commit(std::uint32_t size, std::uint32_t msg_type) noexcept {
    if (!callee_.can_reply(id_)) return Status::unknown_call;
    const Status status = callee_.replies_.commit(size, msg_type, id_);
    if (status == Status::ok) callee_.replied(id_);
    return status;
}

Status Answer::abort() noexcept { return callee_.replies_.abort(); }

bool Answer::is_parcel(std::uint64_t size) const noexcept { return callee_.replies_.is_parcel(size); }

bool Answer::look_for_room(std::uint64_t size, std::uint64_t looks) noexcept {
    return callee_.replies_.spin_writable(size, looks);
}

Status Answer::sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept {
    return callee_.replies_.wait_writable(size, until);
}

}  // namespace tachyon
