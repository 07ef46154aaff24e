// Purpose: the lock-free single-producer single-consumer ring over one segment. Header-only; knows neither sockets nor Python.
// Threads: one thread (of any process) uses the Producer, one the Consumer. Everything is noexcept and never allocates; the
//   only system call is the wake of a parked peer.
// Lifetime: the segment must stay mapped while a Producer or Consumer over it is used. A claimed payload is valid until
//   commit or abort, a peeked one until its release.
// Ordering (argued label by label in docs/memory-model.md):
//   [commit]  payload (plain) → commit word (release)      pairs with  commit word (acquire) → payload, in peek
//   [free]    clears (relaxed) → read_position (release)   pairs with  read_position (acquire) → next lap's payload, in has_room
//   Waking the other side after either is wait.hpp's [wake-barrier].
//
// A frame is whole 64-byte lines: commit word, correlation_id, payload, padding. The commit word is stored last; 0 means
// "not yet". There is no shared write position: the consumer polls the word where the next frame will start.
//
// Invariant: the word at the write position reads 0 before the commit that precedes it is visible.
//   The consumer keeps it by clearing the first word of every line it frees (any line can be a header in the next lap), the
//   producer by clearing those of lines that it claimed and did not commit.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

#include "tachyon/error.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// A mapped segment as the ring sees it. The capacity comes from the handshake, never from shared memory.
struct RingMemory {
    SegmentHeader* header = nullptr;
    std::uint8_t* data = nullptr;
    std::uint64_t capacity = 0;
    Barrier barrier = Barrier::locked;
    Doorbell doorbell{};
};

namespace detail {

// FNV-1a, going on from `hash`.
constexpr std::uint64_t mix(std::uint64_t hash, std::initializer_list<std::uint64_t> values) noexcept {
    for (const std::uint64_t value : values) {
        for (int byte = 0; byte < 8; ++byte) hash = (hash ^ (value >> (8 * byte) & 0xff)) * 0x100000001b3u;
    }
    return hash;
}

inline std::atomic<std::uint64_t>& word_at(std::uint8_t* line) noexcept {
    return *reinterpret_cast<std::atomic<std::uint64_t>*>(line);
}

// Relaxed: the caller's next release store publishes the clears.
inline void clear_lines(std::uint8_t* from, const std::uint8_t* to) noexcept {
    for (; from < to; from += kLine) word_at(from).store(0, std::memory_order_relaxed);
}

template <std::size_t N>
inline void copy_bytes(std::uint8_t* to, const std::uint8_t* from) noexcept {
    std::memcpy(to, from, N);
}

// At most 48 bytes by overlapping fixed-size moves: a call to memcpy would cost as much as the rest of the frame.
inline void copy_one_line(std::uint8_t* to, const std::uint8_t* from, std::uint64_t size) noexcept {
    if (size >= 32) {
        copy_bytes<32>(to, from);
        copy_bytes<16>(to + size - 16, from + size - 16);
    } else if (size >= 16) {
        copy_bytes<16>(to, from);
        copy_bytes<16>(to + size - 16, from + size - 16);
    } else if (size >= 8) {
        copy_bytes<8>(to, from);
        copy_bytes<8>(to + size - 8, from + size - 8);
    } else if (size >= 4) {
        copy_bytes<4>(to, from);
        copy_bytes<4>(to + size - 4, from + size - 4);
    } else if (size > 0) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
}

}  // namespace detail

// Whether a commit looks for a parked consumer at once. After Wake::later the producer owes a wake_consumer().
enum class Wake : bool { later = false, now = true };

// ---- producer ------------------------------------------------------------------------------------------------------------
//
// write_position_        bytes committed; only this object writes it; never decreases
// cached_read_position_  last read_position seen; cached_read ≤ read_position ≤ write_position
// full                   write_position + frame - read_position > capacity
class Producer {
  public:
    Producer() noexcept = default;
    explicit Producer(const RingMemory& memory) noexcept : memory_(memory), mask_(memory.capacity - 1) {}

    // Room for `size` ≤ max_message_size() bytes, or nullptr while the ring is full (or corrupt()). No claim may be open.
    // A frame that would cross the end is preceded by a padding frame. If both can never fit at once the padding frame is
    // published by itself, so that a message larger than half the ring finds, once that is freed, all of it.
    [[nodiscard]] std::uint8_t* try_claim(std::uint64_t size) noexcept {
        const std::uint64_t frame = frame_size(size);
        if (frame > bytes_to_end()) [[unlikely]] {
            if (!pad_to_end(frame)) return nullptr;
        }
        if (!has_room(frame)) [[unlikely]]
            return nullptr;
        claimed_ = frame;
        return line() + kFrameHeader;
    }

    // Makes the claim visible, cut down to `size` bytes.
    template <Wake kWake = Wake::now>
    void commit(std::uint32_t size, std::uint32_t type_id, std::uint64_t correlation_id = 0) noexcept {
        std::uint8_t* const start = line();
        const std::uint64_t frame = frame_size(size);
        detail::clear_lines(start + frame, start + claimed_);
        claimed_ = 0;
        publish<kWake>(start, frame, commit_word(size, type_id), correlation_id);
    }

    // Gives the claim back. Its first word was never written.
    void abort() noexcept {
        detail::clear_lines(line() + kLine, line() + claimed_);
        claimed_ = 0;
    }

    // try_claim, copy, commit. False while the ring is full (or corrupt()).
    template <Wake kWake = Wake::now>
    [[nodiscard]] bool try_send(const void* data, std::uint32_t size, std::uint32_t type_id,
                                std::uint64_t correlation_id = 0) noexcept {
        if (size <= kOneLinePayload) [[likely]] {  // one line never crosses the end and leaves nothing to clear
            if (!has_room(kLine)) [[unlikely]]
                return false;
            std::uint8_t* const start = line();
            detail::copy_one_line(start + kFrameHeader, static_cast<const std::uint8_t*>(data), size);
            publish<kWake>(start, kLine, commit_word(size, type_id), correlation_id);
            return true;
        }
        std::uint8_t* const payload = try_claim(size);
        if (payload == nullptr) return false;
        std::memcpy(payload, data, size);
        commit<kWake>(size, type_id, correlation_id);
        return true;
    }

    // Would try_claim(size) get further now? What a producer that waits for room looks at.
    [[nodiscard]] bool can_advance(std::uint64_t size) noexcept {
        const std::uint64_t frame = frame_size(size), rest = bytes_to_end();
        return has_room(frame <= rest ? frame : padding_need(frame, rest)) || corrupt_;
    }

    bool wake_consumer() noexcept {
        if (!wake_if_parked(memory_.header->consumer_parked, memory_.barrier, memory_.doorbell)) [[likely]]
            return false;
        ++wakes_;
        return true;
    }

    // The consumer published a read_position that it cannot have reached.
    [[nodiscard]] bool corrupt() const noexcept { return corrupt_; }
    // Everything committed so far has been freed, by a consumer that has told so.
    [[nodiscard]] bool all_read() const noexcept {
        return memory_.header->read_position.load(std::memory_order_acquire) == write_position_;  // [free]
    }
    [[nodiscard]] std::uint64_t claimed() const noexcept { return claimed_; }
    [[nodiscard]] bool claim_open() const noexcept { return claimed_ != 0; }
    [[nodiscard]] std::uint64_t write_position() const noexcept { return write_position_; }
    [[nodiscard]] std::uint64_t cached_read_position() const noexcept { return cached_read_position_; }
    [[nodiscard]] std::uint64_t messages() const noexcept { return messages_; }
    [[nodiscard]] std::uint64_t wakes() const noexcept { return wakes_; }

    // Where each field stands, for ring_layout().
    static constexpr std::uint64_t layout(std::uint64_t hash) noexcept {
        return detail::mix(hash, {sizeof(Producer), offsetof(Producer, memory_), offsetof(Producer, mask_),
                                  offsetof(Producer, write_position_), offsetof(Producer, cached_read_position_),
                                  offsetof(Producer, claimed_), offsetof(Producer, messages_),
                                  offsetof(Producer, wakes_), offsetof(Producer, corrupt_)});
    }

  private:
    [[nodiscard]] std::uint8_t* line() const noexcept { return memory_.data + (write_position_ & mask_); }
    [[nodiscard]] std::uint64_t bytes_to_end() const noexcept { return memory_.capacity - (write_position_ & mask_); }

    [[nodiscard]] bool has_room(std::uint64_t bytes) noexcept {
        if (write_position_ + bytes - cached_read_position_ <= memory_.capacity) [[likely]]
            return true;
        return has_room_now(bytes);
    }

    [[nodiscard, gnu::noinline]] bool has_room_now(std::uint64_t bytes) noexcept {
        const std::uint64_t read = memory_.header->read_position.load(std::memory_order_acquire);  // [free]
        if (read - cached_read_position_ > write_position_ - cached_read_position_) {
            corrupt_ = true;
            return false;
        }
        cached_read_position_ = read;
        return write_position_ + bytes - read <= memory_.capacity;
    }

    // Together with the frame if the two can ever fit, else alone.
    [[nodiscard]] std::uint64_t padding_need(std::uint64_t frame, std::uint64_t rest) const noexcept {
        return rest + frame <= memory_.capacity ? rest + frame : rest;
    }

    // Only the commit word of a padding frame is written: its other lines stay as clean as they are.
    [[nodiscard, gnu::noinline]] bool pad_to_end(std::uint64_t frame) noexcept {
        const std::uint64_t rest = bytes_to_end();
        if (!has_room(padding_need(frame, rest))) return false;
        detail::word_at(line()).store(kPadding, std::memory_order_release);  // [commit]
        write_position_ += rest;
        wake_consumer();  // a lone padding frame has to wake a parked consumer too: nothing else will
        return true;
    }

    template <Wake kWake>
    void publish(std::uint8_t* start, std::uint64_t frame, std::uint64_t word, std::uint64_t correlation_id) noexcept {
        std::memcpy(start + 8, &correlation_id, sizeof correlation_id);
        detail::word_at(start).store(word, std::memory_order_release);  // [commit]
        write_position_ += frame;
        ++messages_;
        if constexpr (kWake == Wake::now) wake_consumer();
    }

    RingMemory memory_;
    std::uint64_t mask_ = 0;
    std::uint64_t write_position_ = 0;
    std::uint64_t cached_read_position_ = 0;
    std::uint64_t claimed_ = 0;  // bytes of ring claimed and neither committed nor given back
    std::uint64_t messages_ = 0;
    std::uint64_t wakes_ = 0;
    bool corrupt_ = false;
};

// ---- consumer ------------------------------------------------------------------------------------------------------------

// A message in place. Every field is a private copy, checked: the peer cannot change it any more.
struct Frame {
    const std::uint8_t* payload;
    std::uint64_t position;  // of its first line
    std::uint64_t correlation_id;
    std::uint32_t size;
    std::uint32_t type_id;
};

// cursor_  position of the next frame to look at   ┐
// freed_   bytes freed; all before it is cleared   ├ freed - pending ≤ freed ≤ cursor ≤ freed + capacity; none decreases
// pending_ freed, but not yet in read_position     ┘
// empty    the commit word at cursor_ reads 0
class Consumer {
  public:
    Consumer() noexcept = default;
    explicit Consumer(const RingMemory& memory) noexcept
        : memory_(memory), mask_(memory.capacity - 1), publish_every_(memory.capacity / 8) {}

    // The next frame: ok, empty or corrupt. Several may be held; they are released in the order they were peeked.
    // Hands back what has been freed before it says empty, so that a ring of one message still moves.
    [[nodiscard]] Status peek(Frame& frame) noexcept {
        for (;;) {
            // While a whole ring of frames is held, the word at the cursor is that of the oldest of them.
            if (cursor_ - freed_ == memory_.capacity) [[unlikely]]
                return Status::empty;
            const std::uint64_t offset = cursor_ & mask_;
            std::uint8_t* const line = memory_.data + offset;
            const std::uint64_t word = detail::word_at(line).load(std::memory_order_acquire);  // [commit]
            if (word == 0) {
                hand_back();
                return Status::empty;
            }
            const std::uint64_t room = memory_.capacity - (offset > cursor_ - freed_ ? offset : cursor_ - freed_);
            if (low_half(word) == kPadding) [[unlikely]] {
                if (!skip_padding(offset, word)) return Status::corrupt;
                continue;
            }
            const std::uint32_t size = low_half(word) - 1;
            const std::uint64_t bytes = frame_size(size);
            if (bytes > room) [[unlikely]]  // beyond the end, or over frames that are still held
                return Status::corrupt;
            std::memcpy(&frame.correlation_id, line + 8, sizeof frame.correlation_id);
            frame.payload = line + kFrameHeader;
            frame.position = cursor_;
            frame.size = size;
            frame.type_id = high_half(word);
            cursor_ += bytes;
            ++peeked_;
            return Status::ok;
        }
    }

    // Frees the oldest held frame, and the padding before it. While the producer is parked it is told at once.
    void release(const Frame& frame) noexcept {
        if (freed_ != frame.position) [[unlikely]]
            free_padding(frame.position);
        std::uint8_t* const line = memory_.data + (freed_ & mask_);
        const std::uint64_t bytes = frame_size(frame.size);
        if (bytes == kLine) [[likely]] {
            detail::word_at(line).store(0, std::memory_order_relaxed);  // published by [free]
        } else {
            detail::clear_lines(line, line + bytes);
        }
        ++released_;
        freed_ += bytes;
        pending_ += bytes;
        if (freed_ != cursor_ && held() == 0) [[unlikely]]
            free_padding(cursor_);
        hand_back_when_due();
    }

    // Frees `frames` frames that were let go of before the oldest one was, now that it is their turn: all that lies before
    // `until`, padding among them too.
    void release_run(std::uint64_t until, std::uint64_t frames) noexcept {
        const std::uint64_t start = freed_ & mask_, bytes = until - freed_;
        const std::uint64_t before_end = bytes < memory_.capacity - start ? bytes : memory_.capacity - start;
        detail::clear_lines(memory_.data + start, memory_.data + start + before_end);
        detail::clear_lines(memory_.data, memory_.data + (bytes - before_end));
        released_ += frames;
        freed_ = until;
        pending_ += bytes;
        if (freed_ != cursor_ && held() == 0) free_padding(cursor_);
        hand_back_when_due();
    }

    // Undoes the last peek: the frame will be the next one again.
    void put_back(const Frame& frame) noexcept {
        cursor_ = frame.position;
        --peeked_;
    }

    // Every frame that is held becomes the next one again, oldest first.
    void put_back_all() noexcept {
        cursor_ = freed_;  // padding before them has not been cleared, and is skipped again
        peeked_ = released_;
    }

    // Is this the oldest frame that is held, just as peek gave it? What a frame has to pass before its release if it was in hands
    // that may have changed or mixed it up: nothing outside the ring is cleared then, and nothing that is still held.
    [[nodiscard]] bool is_oldest(const Frame& frame) const noexcept {
        if (held() == 0 || frame.position != oldest()) return false;
        const std::uint64_t offset = frame.position & mask_, bytes = frame_size(frame.size);
        // Relaxed: its acquire load was in peek. Compared, not trusted: the bounds come from our own numbers.
        const std::uint64_t word = detail::word_at(memory_.data + offset).load(std::memory_order_relaxed);
        return low_half(word) - 1 == frame.size && frame.position < cursor_ && bytes <= cursor_ - frame.position &&
               bytes <= memory_.capacity - offset;
    }

    // Tells the producer of everything freed so far.
    void hand_back() noexcept {
        if (pending_ == 0) return;
        pending_ = 0;
        memory_.header->read_position.store(freed_, std::memory_order_release);  // [free]
        if (wake_if_parked(memory_.header->producer_parked, memory_.barrier, memory_.doorbell)) [[unlikely]]
            ++wakes_;
    }

    // Would peek() find something? What a consumer that waits looks at.
    [[nodiscard]] bool has_frame() const noexcept { return !holds_whole_ring() && has_word(); }

    [[nodiscard]] std::uint64_t held() const noexcept { return peeked_ - released_; }
    // Where the next frame starts after one that ends at `position`: padding there, if any, has been skipped.
    [[nodiscard]] std::uint64_t after(std::uint64_t position) const noexcept {
        return position != padding_ ? position : position + (memory_.capacity - (position & mask_));
    }
    // Position of the oldest frame that is held, if any is.
    [[nodiscard]] std::uint64_t oldest() const noexcept { return after(freed_); }
    [[nodiscard]] std::uint64_t cursor() const noexcept { return cursor_; }
    // Nothing can come before something is released.
    [[nodiscard]] bool holds_whole_ring() const noexcept { return cursor_ - freed_ == memory_.capacity; }
    // As has_frame, as long as not the whole ring is held. Reads nothing that a release changes.
    [[nodiscard]] bool has_word() const noexcept {
        return detail::word_at(memory_.data + (cursor_ & mask_)).load(std::memory_order_acquire) != 0;
    }
    [[nodiscard]] std::uint64_t freed_position() const noexcept { return freed_; }
    [[nodiscard]] std::uint64_t messages() const noexcept { return released_; }
    [[nodiscard]] std::uint64_t wakes() const noexcept { return wakes_; }

    // Where each field stands, for ring_layout().
    static constexpr std::uint64_t layout(std::uint64_t hash) noexcept {
        return detail::mix(hash,
                           {sizeof(Consumer), offsetof(Consumer, memory_), offsetof(Consumer, mask_),
                            offsetof(Consumer, publish_every_), offsetof(Consumer, cursor_), offsetof(Consumer, freed_),
                            offsetof(Consumer, pending_), offsetof(Consumer, peeked_), offsetof(Consumer, wakes_),
                            offsetof(Consumer, released_), offsetof(Consumer, padding_)});
    }

  private:
    void hand_back_when_due() noexcept {
        // Relaxed: a hint. A producer that parks after this look finds what peek or a later release hands back.
        if (pending_ >= publish_every_ || memory_.header->producer_parked.load(std::memory_order_relaxed) != 0) {
            hand_back();
        }
    }

    // A padding frame fills the ring to its end, has no type_id, and never starts at offset 0, where any frame fits.
    [[nodiscard, gnu::noinline]] bool skip_padding(std::uint64_t offset, std::uint64_t word) noexcept {
        const std::uint64_t bytes = memory_.capacity - offset;
        if (offset == 0 || high_half(word) != 0 || bytes > memory_.capacity - (cursor_ - freed_)) return false;
        padding_ = cursor_;
        cursor_ += bytes;
        if (held() == 0) free_padding(cursor_);
        return true;
    }

    // Only the commit word of a padding frame was written, so only that is cleared.
    [[gnu::noinline]] void free_padding(std::uint64_t until) noexcept {
        detail::word_at(memory_.data + (freed_ & mask_)).store(0, std::memory_order_relaxed);  // published by [free]
        pending_ += until - freed_;
        freed_ = until;
    }

    RingMemory memory_;
    std::uint64_t mask_ = 0;
    std::uint64_t publish_every_ = 0;
    std::uint64_t cursor_ = 0;
    std::uint64_t freed_ = 0;
    std::uint64_t pending_ = 0;
    std::uint64_t peeked_ =
        0;                     // frames; not beside released_: the compiler would update the two as one vector, and the
    std::uint64_t wakes_ = 0;  // load of that, after a store to one half of it, waits for the store to leave the core
    std::uint64_t released_ = 0;
    std::uint64_t padding_ =
        ~std::uint64_t{0};  // position of the last padding frame skipped; what is held spans no two
};

// ---- one ring, two compilations ---------------------------------------------------------------------------------------------
//
// A Producer or Consumer may be made in one binary and used by code that inlined this header in another. Both have to mean the
// same bytes by it: they compare this number first. It follows every field by itself; count kRingRevision up when what a field
// means changes and its place does not.
inline constexpr std::uint64_t kRingRevision = 1;

constexpr std::uint64_t ring_layout() noexcept {
    std::uint64_t hash = detail::mix(0xcbf29ce484222325u, {kRingRevision, layout_hash()});
    hash = detail::mix(hash, {sizeof(RingMemory), offsetof(RingMemory, header), offsetof(RingMemory, data),
                              offsetof(RingMemory, capacity), offsetof(RingMemory, barrier),
                              offsetof(RingMemory, doorbell), sizeof(Doorbell)});
    hash = detail::mix(hash, {sizeof(Frame), offsetof(Frame, payload), offsetof(Frame, position),
                              offsetof(Frame, correlation_id), offsetof(Frame, size), offsetof(Frame, type_id)});
    return Consumer::layout(Producer::layout(hash));
}

}  // namespace tachyon
