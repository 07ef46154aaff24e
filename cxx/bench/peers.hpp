// Purpose: what else one could put into shared memory, each side spinning, as its own documentation uses it.
#pragma once

#include <cstring>
#include <memory>
#include <string>

#include "measure.hpp"

#ifdef HAVE_BOOST
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/lockfree/spsc_queue.hpp>
#endif

namespace bench {

// The ring of textbooks: two positions in lines of their own, each side with a copy of the other's; records are a length and
// bytes, one behind the other, and never cross the end. Made visible after each message, or after kBatch of them.
template <std::size_t kBatch>
class IndexRing {
  public:
    static constexpr const char* kName = kBatch == 1 ? "index" : "index32";
    explicit IndexRing(const Shape& shape)
        : size_(shape.size), capacity_(shape.capacity), memory_(kPositions + shape.capacity) {}
    void open_sender() { memory_.touch(); }
    void open_receiver() { memory_.touch(); }

    void send(const void* data) {
        const std::uint64_t record = record_size(size_), to_end = capacity_ - (own_ & (capacity_ - 1));
        const std::uint64_t need = record <= to_end ? record : to_end + record;
        if (own_ + need - other_ > capacity_) {
            flush();
            while (own_ + need - (other_ = read().load(std::memory_order_acquire)) > capacity_) cpu_relax();
        }
        if (record > to_end) {
            put_length(kSkip);
            own_ += to_end;
        }
        std::memcpy(put_length(size_), data, size_);
        own_ += record;
        if (++unseen_ == kBatch) flush();
    }
    void flush() {
        unseen_ = 0;
        written().store(own_, std::memory_order_release);
    }

    void receive(void* to) {
        wait_for_record();
        std::uint64_t length = length_here();
        if (length == kSkip) {
            own_ += capacity_ - (own_ & (capacity_ - 1));
            wait_for_record();
            length = length_here();
        }
        std::memcpy(to, here() + sizeof length, length);
        own_ += record_size(length);
        if (++unseen_ == kBatch) give_back();
    }

  private:
    static constexpr std::size_t kPositions = 4096;
    static constexpr std::uint64_t kSkip = ~std::uint64_t{0};
    static std::uint64_t record_size(std::uint64_t size) { return (sizeof size + size + 7) & ~std::uint64_t{7}; }

    [[nodiscard]] Line& line(std::size_t i) const { return static_cast<Line*>(memory_.get())[i]; }
    [[nodiscard]] std::atomic<std::uint64_t>& written() const { return line(0).value; }
    [[nodiscard]] std::atomic<std::uint64_t>& read() const { return line(1).value; }
    [[nodiscard]] std::uint8_t* here() const {
        return static_cast<std::uint8_t*>(memory_.get()) + kPositions + (own_ & (capacity_ - 1));
    }
    std::uint8_t* put_length(std::uint64_t length) {
        std::memcpy(here(), &length, sizeof length);
        return here() + sizeof length;
    }
    [[nodiscard]] std::uint64_t length_here() const {
        std::uint64_t length;
        std::memcpy(&length, here(), sizeof length);
        return length;
    }
    void wait_for_record() {
        if (own_ != other_) return;
        give_back();
        while ((other_ = written().load(std::memory_order_acquire)) == own_) cpu_relax();
    }
    void give_back() {
        unseen_ = 0;
        read().store(own_, std::memory_order_release);
    }

    std::uint64_t size_, capacity_;
    Shared memory_;
    std::uint64_t own_ = 0, other_ = 0;  // positions; `other_` may be old
    std::size_t unseen_ = 0;
};

// Nothing but copies: slots of one size, in and out by libc's memcpy, one counter each way for every 4 KiB or message.
// No lengths, no wrap, no flow of anything else: the limit for bulk data, not a queue that one would use.
class PlainCopy {
  public:
    static constexpr const char* kName = "copy";
    explicit PlainCopy(const Shape& shape)
        : size_(shape.size),
          slots_(std::max<std::size_t>(1, shape.capacity / rounded(shape.size))),
          every_(std::clamp<std::uint64_t>(4096 / shape.size, 1, std::max<std::size_t>(1, slots_ / 4))),
          memory_(4096 + slots_ * rounded(shape.size)) {}
    void open_sender() { memory_.touch(); }
    void open_receiver() { memory_.touch(); }
    void send(const void* data) {
        if (own_ - other_ == slots_) {
            flush();
            while (own_ - (other_ = line(1).load(std::memory_order_acquire)) == slots_) cpu_relax();
        }
        std::memcpy(slot(), data, size_);
        next();
        if (own_ % every_ == 0) flush();
    }
    void flush() { line(0).store(own_, std::memory_order_release); }
    void receive(void* to) {
        if (own_ == other_) {
            line(1).store(own_, std::memory_order_release);
            while ((other_ = line(0).load(std::memory_order_acquire)) == own_) cpu_relax();
        }
        std::memcpy(to, slot(), size_);
        next();
        if (own_ % every_ == 0) line(1).store(own_, std::memory_order_release);
    }

  private:
    static std::size_t rounded(std::size_t size) { return (size + 63) / 64 * 64; }
    [[nodiscard]] std::atomic<std::uint64_t>& line(std::size_t i) const {
        return static_cast<Line*>(memory_.get())[i].value;
    }
    [[nodiscard]] std::uint8_t* slot() const {
        return static_cast<std::uint8_t*>(memory_.get()) + 4096 + at_ * rounded(size_);
    }
    void next() {
        ++own_;
        if (++at_ == slots_) at_ = 0;
    }
    std::size_t size_;
    std::uint64_t slots_, every_;
    Shared memory_;
    std::uint64_t own_ = 0, other_ = 0, at_ = 0;
};

#ifdef HAVE_BOOST

// Boost.Lockfree wants its capacity at compile time where it lies in shared memory.
template <std::size_t kSize, std::size_t kCapacity>
class BoostSpsc {
  public:
    static constexpr const char* kName = "boost";
    explicit BoostSpsc(const Shape&) : memory_(sizeof(Queue) + 4096), queue_(new (memory_.get()) Queue) {}
    void open_sender() { memory_.touch(); }
    void open_receiver() { memory_.touch(); }
    void send(const void* data) {
        while (!queue_->push(*static_cast<const Message*>(data))) cpu_relax();
    }
    void flush() {}
    void receive(void* to) {
        while (!queue_->pop(*static_cast<Message*>(to))) cpu_relax();
    }

  private:
    struct Message {
        std::uint8_t bytes[kSize];
    };
    using Queue = boost::lockfree::spsc_queue<Message, boost::lockfree::capacity<kCapacity / kSize>>;
    Shared memory_;
    Queue* queue_;  // trivial content: it goes with the memory
};

// As many messages as fit, but not more than a thousand: it keeps a heap of them.
template <bool kSpin>
class BoostMessageQueue {
  public:
    static constexpr const char* kName = kSpin ? "boost-mq-try" : "boost-mq";
    explicit BoostMessageQueue(const Shape& shape)
        : size_(shape.size), name_("tachyon-bench-" + std::to_string(::getpid()) + "-" + std::to_string(++count())) {
        Queue::remove(name_.c_str());
        queue_ = std::make_unique<Queue>(boost::interprocess::create_only, name_.c_str(),
                                         std::clamp<std::size_t>(shape.capacity / size_, 4, 1024), size_);
    }
    ~BoostMessageQueue() { Queue::remove(name_.c_str()); }
    BoostMessageQueue(const BoostMessageQueue&) = delete;
    BoostMessageQueue& operator=(const BoostMessageQueue&) = delete;
    void open_sender() {}
    void open_receiver() {}
    void send(const void* data) {
        if constexpr (kSpin) {
            while (!queue_->try_send(data, size_, 0)) cpu_relax();
        } else {
            queue_->send(data, size_, 0);
        }
    }
    void flush() {}
    void receive(void* to) {
        Queue::size_type size;
        unsigned priority;
        if constexpr (kSpin) {
            while (!queue_->try_receive(to, size_, size, priority)) cpu_relax();
        } else {
            queue_->receive(to, size_, size, priority);
        }
    }

  private:
    using Queue = boost::interprocess::message_queue;
    static int& count() {
        static int made = 0;
        return made;
    }
    std::size_t size_;
    std::string name_;
    std::unique_ptr<Queue> queue_;
};

#endif

}  // namespace bench
