// Purpose: the end of a ring that receives. See ring.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tachyon/error.hpp"
#include "tachyon/ring/frame.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// cursor_  position of the next frame to look at   ┐
// freed_   bytes freed; all before it is cleared   ├ freed - pending ≤ freed ≤ cursor ≤ freed + capacity; none decreases
// pending_ freed, and the producer not told of it  ┘
// empty    the commit word at cursor_ reads 0
class Consumer {
  public:
    Consumer() noexcept = default;
    explicit Consumer(const RingMemory& memory) noexcept
        : memory_(memory), mask_(memory.capacity - 1), publish_every_(memory.capacity / 8) {}

    // The next frame: ok, empty or corrupt. Several may be held; they are released in the order they were peeked.
    // too_large: the next one announces a message that is not in the ring. It is in `frame`, but not taken: accept() does that.
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
            if (bytes > room) [[unlikely]] {  // beyond the end, or over frames that are still held
                if (low_half(word) != kParcel) return Status::corrupt;
                fill(frame, line, sizeof(std::uint64_t), word);
                return Status::too_large;
            }
            fill(frame, line, size, word);
            cursor_ += as_before(bytes);
            ++peeked_;
            return Status::ok;
        }
    }

    // Takes the announcement that peek has just come upon. Its frame is one line: released as one of 8 bytes.
    void accept() noexcept {
        cursor_ += kLine;
        ++peeked_;
    }

    // Frees the oldest held frame, and the padding before it. While the producer is parked it is told at once, if it does not doze.
    void release(const Frame& frame) noexcept {
        if (freed_ != frame.position) [[unlikely]]
            free_padding(frame.position);
        std::uint8_t* const line = memory_.data + (freed_ & mask_);
        const std::uint64_t bytes = frame_size(frame.size);
        if (bytes == kLine) [[likely]] {
            detail::word_at(line).store(0, std::memory_order_relaxed);  // published by [free]
        } else {
            clear(line, bytes);
        }
        ++released_;
        freed_ += bytes;
        pending_ += bytes;
        if (freed_ != cursor_ && held() == 0) [[unlikely]]
            free_padding(cursor_);
        hand_back_when_due();
    }

    // For a frame that is let go of before it is the oldest: nothing of it is looked at again, and its turn comes in release_run().
    void release_early(const Frame& frame) noexcept {
        const std::uint64_t offset = frame.position & mask_;
        clear(memory_.data + offset, std::min(frame_size(frame.size), memory_.capacity - offset));
    }

    // Frees `frames` frames that were released early, now that it is their turn: all that lies before `until`, padding too.
    void release_run(std::uint64_t until, std::uint64_t frames) noexcept {
        if (padding_ >= freed_ && padding_ < until)
            detail::word_at(memory_.data + (padding_ & mask_))
                .store(0, std::memory_order_relaxed);  // published by [free]
        released_ += frames;
        pending_ += until - freed_;
        freed_ = until;
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
        // For whoever watches, in the line that is written anyway; relaxed, since nothing hangs on them.
        SideCounters& counters = memory_.header->consumer;
        counters.messages.store(released_, std::memory_order_relaxed);
        counters.wakes.store(wakes_, std::memory_order_relaxed);
        counters.active_ns.store(coarse_ns(), std::memory_order_relaxed);
        publish();
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
        return detail::mix(
            hash, {sizeof(Consumer), offsetof(Consumer, memory_), offsetof(Consumer, mask_),
                   offsetof(Consumer, publish_every_), offsetof(Consumer, cursor_), offsetof(Consumer, freed_),
                   offsetof(Consumer, pending_), offsetof(Consumer, peeked_), offsetof(Consumer, wakes_),
                   offsetof(Consumer, released_), offsetof(Consumer, bytes_before_), offsetof(Consumer, padding_)});
    }

  private:
    // `bytes`, from another source: what the last frame had, if it is the same. The processor guesses that it is, and looks for the next
    // line while this one is still on its way; computed from what is in this line, the next address would have to wait for it.
    [[nodiscard]] std::uint64_t as_before(std::uint64_t bytes) noexcept {
        const std::uint64_t before = bytes_before_;
        std::uint64_t guess = before;
        asm("" : "+r"(guess));  // the compiler must not see that it is `bytes` in either case
        if (bytes != before) [[unlikely]] {
            bytes_before_ = guess = bytes;
            asm volatile("" : "+r"(guess));  // nor select without a branch
        }
        return guess;
    }
    void fill(Frame& frame, const std::uint8_t* line, std::uint32_t size, std::uint64_t word) const noexcept {
        std::memcpy(&frame.correlation_id, line + 8, sizeof frame.correlation_id);
        frame.payload = line + kFrameHeader;
        frame.position = cursor_;
        frame.size = size;
        frame.type_id = high_half(word);
    }

    void publish() const noexcept {
        memory_.header->read_position.store(freed_, std::memory_order_release);  // [free]
    }
    void hand_back_when_due() noexcept {
        // Relaxed: a hint. A producer that parks after this look finds what peek or a later release hands back.
        const std::uint32_t parked = memory_.header->producer_parked.load(std::memory_order_relaxed);
        if (pending_ >= publish_every_ || parked != kAwake) [[unlikely]]
            hand_back_to(parked);
    }
    // A producer that dozes sees the room when it looks next; pending_ goes on to count towards what is worth a wake.
    [[gnu::noinline]] void hand_back_to(std::uint32_t parked) noexcept {
        if (pending_ < publish_every_ && parked == kDozing) {
            publish();
        } else {
            hand_back();
        }
    }

    // Of a frame: published by [free].
    void clear(std::uint8_t* line, std::uint64_t bytes) const noexcept {
        detail::clear_lines(line, line + (bytes < memory_.bulk ? bytes : kLine));
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
    // Frames. Not beside released_: the compiler would update the two as one vector, and the load of that, after a store to one half of
    // it, waits for the store to leave the core.
    std::uint64_t peeked_ = 0;
    std::uint64_t wakes_ = 0;
    std::uint64_t released_ = 0;
    std::uint64_t bytes_before_ = 0;
    // Position of the last padding frame skipped; what is held spans no two.
    std::uint64_t padding_ = ~std::uint64_t{0};
};

}  // namespace tachyon
