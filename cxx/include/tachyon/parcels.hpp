// Purpose: what a bus knows of the messages that do not fit its ring: which are under way, on the side that sends, and which are
//   open, on the side that receives. Their places in the order are ring positions, of the lines that announce them.
// Threads: one at a time; beside a waiting thread, as Bus says. Lifetime: a received payload is valid until it is dropped.
// Ordering: none.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "tachyon/link/inbox.hpp"
#include "tachyon/shm/parcel.hpp"

namespace tachyon {

// Those that the consumer has not let go of, as far as it has told: what a consumer that takes none can cost.
class ParcelsUnderWay {
  public:
    explicit ParcelsUnderWay(std::uint64_t most_bytes) noexcept : most_bytes_(most_bytes) {}

    // Is there room for one more, given that the consumer has freed up to `freed`?
    [[nodiscard]] bool has_room(std::uint64_t bytes, std::uint64_t freed) noexcept {
        while (count_ != 0 && entries_[oldest_].end <= freed) {
            bytes_ -= entries_[oldest_].bytes;
            oldest_ = (oldest_ + 1) % kMostParcels;
            --count_;
        }
        return count_ < kMostParcels && bytes <= most_bytes_ - bytes_;
    }
    // Announced by a line that ends there.
    void add(std::uint64_t end, std::uint64_t bytes) noexcept {
        entries_[(oldest_ + count_++) % kMostParcels] = {end, bytes};
        bytes_ += bytes;
    }

  private:
    struct Entry {
        std::uint64_t end, bytes;
    };
    std::array<Entry, kMostParcels> entries_{};
    std::size_t oldest_ = 0;
    std::size_t count_ = 0;
    std::uint64_t bytes_ = 0;
    std::uint64_t most_bytes_;
};

// Those that are mapped: held, or put back to be received again.
class ParcelsReceived {
  public:
    [[nodiscard]] const Parcel* find(std::uint64_t position) const noexcept {
        const auto* const found =
            std::ranges::find_if(entries_, [position](const Entry& each) { return each.is_at(position); });
        return found == entries_.end() ? nullptr : &found->parcel;
    }
    [[nodiscard]] bool is_full() const noexcept { return count_ == kMostParcels; }
    [[nodiscard]] bool is_empty() const noexcept { return count_ == 0; }
    // There must be a place. Returns where it is from now on.
    const Parcel* add(std::uint64_t position, Parcel parcel) noexcept {
        auto* const place = std::ranges::find_if(entries_, [](const Entry& each) { return !each.parcel; });
        *place = {position, std::move(parcel)};
        ++count_;
        return &place->parcel;
    }
    bool drop(std::uint64_t position) noexcept {
        auto* const found =
            std::ranges::find_if(entries_, [position](const Entry& each) { return each.is_at(position); });
        if (found == entries_.end()) return false;
        found->parcel.reset();
        --count_;
        return true;
    }

  private:
    struct Entry {
        std::uint64_t position = 0;
        Parcel parcel;
        [[nodiscard]] bool is_at(std::uint64_t where) const noexcept { return parcel && position == where; }
    };
    std::array<Entry, kMostParcels> entries_;
    std::size_t count_ = 0;
};

// What both sides of a bus have.
struct Parcels {
    explicit Parcels(std::uint64_t most_bytes) noexcept : under_way(most_bytes) {}

    Parcel outgoing;  // claimed, or on its way out
    ParcelsUnderWay under_way;
    // now_ns(), and what the consumer had freed then: the socket took no descriptor, and nobody tells when it does.
    std::uint64_t retry_at = 0;
    std::uint64_t freed_when_refused = 0;
    ParcelsReceived received;
    int trouble = 0;  // an errno: why the last no_memory
};

struct OutgoingMessage {
    const void* data;
    std::uint64_t size;
    std::uint32_t type_id;
    std::uint64_t correlation_id;
};

}  // namespace tachyon
