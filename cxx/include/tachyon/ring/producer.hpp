// Purpose: the end of a ring that sends. See ring.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tachyon/ring/copy.hpp"
#include "tachyon/ring/frame.hpp"
#include "tachyon/ring/layout.hpp"
#include "tachyon/wait/wait.hpp"

namespace tachyon {

// Whether a commit looks for a parked consumer at once. After Wake::later the producer owes a wake_consumer().
enum class Wake : bool { later = false, now = true };

// write_position_        bytes committed; only this object writes it; never decreases
// cached_read_position_  last read_position seen; cached_read ≤ read_position ≤ write_position
// full                   write_position + frame - read_position > capacity
// dirty_from_, dirty_to_ positions whose lines may not begin with 0: from the body of a bulk frame, one lap ahead, or from a large
//                        claim that was cut down or given up. Every free line outside begins with 0. From ~0: there are none.
class Producer {
  public:
    Producer() noexcept = default;
    explicit Producer(const RingMemory& memory) noexcept
        : memory_(memory),
          mask_(memory.capacity - 1),
          fetch_below_(memory.capacity > kFetchLines * kLine ? memory.capacity - kFetchLines * kLine : 0) {}

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
        fetch_claimed(frame);
        return line() + kFrameHeader;
    }

    // Makes the claim visible, cut down to `size` bytes.
    template <Wake kWake = Wake::now>
    void commit(std::uint32_t size, std::uint32_t type_id, std::uint64_t correlation_id = 0) noexcept {
        const std::uint64_t frame = frame_size(size);
        if (frame != claimed_) [[unlikely]]
            leave_unused(write_position_ + frame, write_position_ + claimed_);
        claimed_ = 0;
        publish<kWake>(line(), frame, commit_word(size, type_id), correlation_id);
    }

    // In place of a commit: in the line that was claimed, says that a message of `bytes` bytes comes in memory of its own.
    template <Wake kWake = Wake::now>
    void announce(std::uint64_t bytes, std::uint32_t type_id, std::uint64_t correlation_id) noexcept {
        claimed_ = 0;
        std::memcpy(line() + kFrameHeader, &bytes, sizeof bytes);
        publish<kWake>(line(), kLine, parcel_word(type_id), correlation_id);
    }

    // Gives the claim back. Its first word was never written.
    void abort() noexcept {
        leave_unused(write_position_ + kLine, write_position_ + claimed_);
        claimed_ = 0;
    }

    // try_claim, copy, commit. False while the ring is full (or corrupt()). In line, which nearly doubles the rate of small messages.
    template <Wake kWake = Wake::now>
    [[nodiscard, gnu::always_inline]] bool try_send(const void* data, std::uint32_t size, std::uint32_t type_id,
                                                    std::uint64_t correlation_id = 0) noexcept {
        if (size <= kOneLinePayload) [[likely]] {  // one line never crosses the end, and nothing of it is left unused
            if (!has_room(kLine)) [[unlikely]]
                return false;
            std::uint8_t* const start = line();
            if (write_position_ - cached_read_position_ < fetch_below_) fetch_ahead();
            detail::copy_one_line(start + kFrameHeader, static_cast<const std::uint8_t*>(data), size);
            publish<kWake>(start, kLine, commit_word(size, type_id), correlation_id);
            return true;
        }
        std::uint8_t* const payload = try_claim(size);
        if (payload == nullptr) return false;
        if (claimed_ < memory_.bulk) [[likely]]
            std::memcpy(payload, data, size);
        else
            detail::copy_bulk(payload, static_cast<const std::uint8_t*>(data), size);
        claimed_ = 0;
        publish<kWake>(line(), frame_size(size), commit_word(size, type_id), correlation_id);
        return true;
    }

    // Would try_claim(size) get further now? What a producer that waits for room looks at.
    [[nodiscard]] bool can_advance(std::uint64_t size) noexcept {
        const std::uint64_t frame = frame_size(size), rest = bytes_to_end();
        return has_room(frame <= rest ? frame : padding_need(frame, rest)) || corrupt();
    }

    // How far the consumer says it has freed, asked anew.
    [[nodiscard]] std::uint64_t freed_now() noexcept {
        (void)has_room_now(0);
        return cached_read_position_;
    }

    bool wake_consumer() noexcept {
        if (!wake_if_parked(memory_.header->consumer_parked, memory_.barrier, memory_.doorbell)) [[likely]]
            return false;
        ++wakes_;
        return true;
    }

    // Tells whoever watches. Relaxed, each by itself: nothing hangs on them.
    void report(std::uint64_t now) const noexcept {
        SideCounters& counters = memory_.header->producer;
        memory_.header->write_position.store(write_position_, std::memory_order_relaxed);
        counters.messages.store(messages_, std::memory_order_relaxed);
        counters.wakes.store(wakes_, std::memory_order_relaxed);
        counters.active_ns.store(now, std::memory_order_relaxed);
    }

    // The consumer published a read_position that it cannot have reached.
    [[nodiscard]] bool corrupt() const noexcept { return corrupt_ != 0; }
    // Everything committed so far has been freed, by a consumer that has told so.
    [[nodiscard]] bool all_read() const noexcept {
        return memory_.header->read_position.load(std::memory_order_acquire) == write_position_;  // [free]
    }
    [[nodiscard]] std::uint64_t claimed() const noexcept { return claimed_; }
    [[nodiscard]] bool claim_open() const noexcept { return claimed_ != 0; }
    [[nodiscard]] std::uint64_t write_position() const noexcept { return write_position_; }
    [[nodiscard]] std::uint64_t cached_read_position() const noexcept { return cached_read_position_; }
    // Bounds of the positions whose lines may not begin with 0; empty if from ≥ to.
    [[nodiscard]] std::uint64_t dirty_from() const noexcept { return dirty_from_; }
    [[nodiscard]] std::uint64_t dirty_to() const noexcept { return dirty_to_; }
    [[nodiscard]] std::uint64_t messages() const noexcept { return messages_; }
    [[nodiscard]] std::uint64_t wakes() const noexcept { return wakes_; }

    // Where each field stands, for ring_layout().
    static constexpr std::uint64_t layout(std::uint64_t hash) noexcept {
        return detail::mix(
            hash, {sizeof(Producer), offsetof(Producer, memory_), offsetof(Producer, mask_),
                   offsetof(Producer, write_position_), offsetof(Producer, cached_read_position_),
                   offsetof(Producer, claimed_), offsetof(Producer, fetch_below_), offsetof(Producer, dirty_from_),
                   offsetof(Producer, dirty_to_), offsetof(Producer, messages_), offsetof(Producer, wakes_),
                   offsetof(Producer, corrupt_)});
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
            corrupt_ = 1;
            return false;
        }
        if (read != cached_read_position_) report(coarse_ns());  // at least once a lap, and not while it waits for room
        cached_read_position_ = read;
        return write_position_ + bytes - read <= memory_.capacity;
    }

    // Together with the frame if the two can ever fit, else alone.
    [[nodiscard]] std::uint64_t padding_need(std::uint64_t frame, std::uint64_t rest) const noexcept {
        return rest + frame <= memory_.capacity ? rest + frame : rest;
    }

    // Only the commit word of a padding frame is written: its other lines stay as they are, clean or dirty, for the next lap.
    [[nodiscard, gnu::noinline]] bool pad_to_end(std::uint64_t frame) noexcept {
        const std::uint64_t rest = bytes_to_end();
        if (!has_room(padding_need(frame, rest))) return false;
        const std::uint64_t next = write_position_ + rest;
        const std::uint64_t from = std::max(dirty_from_, write_position_ + kLine), to = std::min(dirty_to_, next);
        if (next >= dirty_to_) forget_dirty();
        if (from < to) add_dirty(from + memory_.capacity, to + memory_.capacity);
        // Nothing to clear at `next`: the first line of the ring is never but a header, and the consumer clears those.
        detail::word_at(line()).store(kPadding, std::memory_order_release);  // [commit]
        write_position_ = next;
        wake_consumer();  // a lone padding frame has to wake a parked consumer too: nothing else will
        return true;
    }

    // The hardware's own prefetch does little for whoever writes line by line, and in small rings nothing.
    void fetch_ahead() const noexcept {
        detail::fetch_cleared(memory_.data + ((write_position_ + kFetchLines * kLine) & mask_));
    }
    // As many lines as are claimed, some way ahead of them if all of those are free: they will be claimed next. Else these.
    void fetch_claimed(std::uint64_t frame) const noexcept {
        std::uint64_t from = write_position_;
        if (frame < memory_.bulk) [[likely]] {
            if (from + detail::kFetchAhead + frame - cached_read_position_ <= memory_.capacity)
                from += detail::kFetchAhead;
            for (const std::uint64_t to = from + frame; from < to; from += kLine)
                detail::fetch_cleared(memory_.data + (from & mask_));
        } else {  // the rest of it is fetched in the course of copying
            for (const std::uint64_t to = from + std::min(frame, detail::kFetchAhead); from < to; from += kLine)
                detail::fetch_read(memory_.data + (from & mask_));
        }
    }

    // Makes the line at `next`, where the frame after this one starts, begin with 0; and up to `most` bytes behind it while we are
    // there. A `next` that is not free is the header of the oldest frame that is not known to be freed: the consumer clears that.
    [[gnu::noinline]] void clean(std::uint64_t next, std::uint64_t most) noexcept {
        if (next >= dirty_to_) return forget_dirty();  // all of it has been passed
        const std::uint64_t free = cached_read_position_ + memory_.capacity - next, offset = next & mask_;
        const std::uint64_t bytes = std::min({most, free, dirty_to_ - next, memory_.capacity - offset});
        if (bytes == 0) return;
        detail::clear_lines(memory_.data + offset, memory_.data + offset + bytes);  // published by [commit]
        dirty_from_ = next + bytes;
    }

    void forget_dirty() noexcept {
        dirty_from_ = ~std::uint64_t{0};
        dirty_to_ = 0;
    }

    // The hull of what was dirty and what is: what lies between costs a needless clear at most.
    void add_dirty(std::uint64_t from, std::uint64_t to) noexcept {
        dirty_from_ = std::min(dirty_from_, from);
        dirty_to_ = std::max(dirty_to_, to);
    }

    // Lines that were claimed and may have been written, and are free again.
    [[gnu::noinline]] void leave_unused(std::uint64_t from, std::uint64_t to) noexcept {
        if (to - from >= memory_.bulk) return add_dirty(from, to);
        detail::clear_lines(memory_.data + (from & mask_), memory_.data + (from & mask_) + (to - from));
    }

    template <Wake kWake>
    [[gnu::always_inline]] void publish(std::uint8_t* start, std::uint64_t frame, std::uint64_t word,
                                        std::uint64_t correlation_id) noexcept {
        const std::uint64_t next = write_position_ + frame;
        const bool bulk = frame != kLine && frame >= memory_.bulk;
        if (next >= dirty_from_) [[unlikely]]
            clean(next, bulk ? kLine : kCleanAhead);
        if (bulk) add_dirty(write_position_ + kLine + memory_.capacity, next + memory_.capacity);
        std::memcpy(start + 8, &correlation_id, sizeof correlation_id);
        detail::word_at(start).store(word, std::memory_order_release);  // [commit]
        write_position_ = next;
        ++messages_;
        if constexpr (kWake == Wake::now) wake_consumer();
    }

    static constexpr std::uint64_t kFetchLines = 12;
    static constexpr std::uint64_t kCleanAhead = 16 * kLine;  // for frames of few lines, which come often

    RingMemory memory_;
    std::uint64_t mask_ = 0;
    std::uint64_t write_position_ = 0;
    std::uint64_t cached_read_position_ = 0;
    // Bytes of ring claimed and neither committed nor given back.
    std::uint64_t claimed_ = 0;
    // While less is unread, the line kFetchLines ahead is free for certain. 0: never look.
    std::uint64_t fetch_below_ = 0;
    std::uint64_t dirty_from_ = ~std::uint64_t{0};
    std::uint64_t dirty_to_ = 0;
    std::uint64_t messages_ = 0;
    std::uint64_t wakes_ = 0;
    // A flag as wide as a word: no padding, in which a new field could hide from ring_layout().
    std::uint64_t corrupt_ = 0;
};

}  // namespace tachyon
