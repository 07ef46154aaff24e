// The part of bus.hpp that sends and receives what does not fit the ring.
//
// Out: room is asked for, and the line that will announce the message is claimed; then the memory is made, filled and sealed; then its
// descriptor goes over the socket; then the line is committed. So whoever sees the line finds the descriptor, and whoever dies before
// that has sent nothing.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tachyon/bus.hpp"

namespace tachyon {

// ---- out -----------------------------------------------------------------------------------------------------------------

// ok: this side sends, has no claim open, and a message of that size may go at all.
Status Bus::begin_parcel(Status why, std::uint64_t size) noexcept {
    return why != Status::too_large || size > most_size_ ? why : begin_send(0);
}

// Is there room for the announcement, and for one more of that size under way?
bool Bus::parcel_can_advance(std::uint64_t size) noexcept {
    if (producer_.can_advance(0) && (parcels_.under_way.has_room(size, producer_.cached_read_position()) ||
                                     parcels_.under_way.has_room(size, producer_.freed_now()))) {
        return parcels_.retry_at == 0 || now_ns() >= parcels_.retry_at ||
               producer_.freed_now() != parcels_.freed_when_refused;
    }
    return producer_.corrupt();
}

Status Bus::claim_announcement(Status why, std::uint64_t size) noexcept {
    if (const Status status = begin_parcel(why, size); status != Status::ok) return status;
    if (!parcel_can_advance(size) || producer_.try_claim(sizeof size) == nullptr) return no_room(size);
    claim_end_ = 0;
    return Status::ok;
}

Status Bus::send_parcel(Status why, const OutgoingMessage& message, Wake wake) noexcept {
    if (const Status status = claim_announcement(why, message.size); status != Status::ok) return status;
    const int error = parcels_.outgoing.fill(message.data, message.size);
    const Status status = error == 0 ? post(message, wake) : no_memory(error);
    if (producer_.claim_open()) (void)abort();
    return status;
}

Status Bus::claim_parcel(Status why, std::uint64_t size, std::uint8_t*& payload) noexcept {
    if (const Status status = claim_announcement(why, size); status != Status::ok) return status;
    if (const int error = parcels_.outgoing.make(size); error != 0) {
        (void)abort();
        return no_memory(error);
    }
    payload = parcels_.outgoing.memory();
    return Status::ok;
}

// Of a parcel, or what may not be committed.
Status Bus::commit_unusually(const OutgoingMessage& message, Wake wake) noexcept {
    const auto size = static_cast<std::uint32_t>(message.size);
    const bool usual = !parcels_.outgoing || mode_.load(std::memory_order_relaxed) != Mode::producer;
    if (usual || !producer_.claim_open() || peer_said_closed()) {
        const Status status = why_no_commit(size);
        if (ends_hold(status)) parcels_.outgoing.reset();
        return status;
    }
    if (size > parcels_.outgoing.bytes() || (parcels_.outgoing.is_sealed() && size != parcels_.outgoing.bytes()))
        return Status::too_large;
    if (size == 0) {  // nothing can be mapped of it, and the ring has room
        parcels_.outgoing.reset();
        producer_.commit<Wake::later>(0, message.type_id, message.correlation_id);
        if (wake == Wake::now) producer_.wake_consumer();
        return after_send();
    }
    if (const int error = parcels_.outgoing.seal(size); error != 0) return no_memory(error);
    return post(message, wake);
}

// What is sealed in parcels_.outgoing, announced in the line that is claimed. full, no_memory: the claim is still open.
Status Bus::post(const OutgoingMessage& message, Wake wake) noexcept {
    if (const int error = connection_->pass(parcels_.outgoing.descriptor()); error != 0)
        return not_passed(error, message.size);
    parcels_.retry_at = 0;
    producer_.announce<Wake::later>(message.size, message.type_id, message.correlation_id);
    parcels_.under_way.add(producer_.write_position(), message.size);
    parcels_.outgoing.reset();
    if (wake == Wake::now) producer_.wake_consumer();
    return after_send();
}

Status Bus::not_passed(int error_number, std::uint64_t size) noexcept {
    switch (error_number) {
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
        case EBADF: {
            if (producer_.claim_open()) (void)abort();
            const Status end = peer_end();
            gone_ = end != Status::ok ? end : Status::peer_dead;
            mode_.store(Mode::producer_gone, std::memory_order_relaxed);
            return gone_;
        }
        // Its buffer is full, or too many descriptors of this user are under way, to whomever. Nobody tells when that has changed,
        // unless the consumer goes on.
        case EAGAIN:
        case ETOOMANYREFS:
        case ENOBUFS:
        case ENOMEM:
            parcels_.retry_at = now_ns() + 5 * kMillisecond;
            parcels_.freed_when_refused = producer_.freed_now();
            return no_room(size);
        default: return no_memory(error_number);
    }
}

Status Bus::no_memory(int error_number) noexcept {
    parcels_.trouble = error_number;
    return Status::no_memory;
}

// ---- in ------------------------------------------------------------------------------------------------------------------

// The message that the line announces which peek has just come upon.
Status Bus::take_parcel(Frame& frame) noexcept {
    const Parcel* parcel = parcels_.received.find(frame.position);  // it was put back
    if (parcel == nullptr) {
        std::uint64_t bytes = 0;
        std::memcpy(&bytes, frame.payload, sizeof bytes);  // once: the peer may change it
        if (bytes == 0 || bytes > connection_->max_large() || bytes > most_size_ || parcels_.received.is_full())
            return poison();
        int descriptor = -1;
        const Status status = connection_->first_passed(descriptor);
        if (status == Status::no_memory) return no_memory(EMFILE);
        if (status != Status::ok) return poison();  // it is there before the line is
        Parcel taken;
        const int error = taken.attach(descriptor, bytes);
        if (error == EPROTO) return poison();
        if (error != 0) return no_memory(error);  // the message stays the next one
        connection_->drop_first_passed();
        parcel = parcels_.received.add(frame.position, std::move(taken));
        unusual_.store(true, std::memory_order_relaxed);
    }
    consumer_.accept();
    frame.payload = parcel->memory();
    frame.size = static_cast<std::uint32_t>(parcel->bytes());
    return Status::ok;
}

bool Bus::is_oldest_parcel(const Frame& frame) const noexcept {
    const Parcel* const parcel = parcels_.received.find(frame.position);
    return parcel != nullptr && consumer_.held() != 0 && frame.position == consumer_.oldest() &&
           frame.payload == parcel->memory() && frame.size == parcel->bytes();
}

// The ring is nobody's any more, but the memory of a parcel is ours.
Status Bus::release_at_end(const Frame& frame) noexcept {
    (void)parcels_.received.drop(frame.position);
    return ended(mode_.load(std::memory_order_relaxed));
}

}  // namespace tachyon
