// Purpose: several messages, of which a consumer that sleeps is told once: when the batch ends, or there is no room for the next.
//   One that polls sees each at once.
// Threads, lifetime and ordering: as the Bus, which it must not outlive.
#pragma once

#include <cstdint>

#include "tachyon/bus.hpp"

namespace tachyon {

class Batch final : public Outlet {
  public:
    explicit Batch(Bus& bus) noexcept : bus_(bus) {}
    Batch(const Batch&) = delete;
    Batch& operator=(const Batch&) = delete;
    ~Batch() { bus_.wake_consumer(); }

    [[nodiscard]] Status try_send(const void* data, std::uint64_t size, std::uint32_t type_id) noexcept override {
        return told(bus_.try_send_quietly(data, size, type_id));
    }
    [[nodiscard]] Status try_claim(std::uint64_t size, std::uint8_t*& payload) noexcept override {
        return told(bus_.try_claim(size, payload));
    }
    [[nodiscard]] Status commit(std::uint32_t size, std::uint32_t type_id) noexcept override {
        return bus_.commit<Wake::later>(size, type_id, 0);
    }
    [[nodiscard]] Status abort() noexcept override { return bus_.abort(); }
    [[nodiscard]] bool is_parcel(std::uint64_t size) const noexcept override { return bus_.is_parcel(size); }

  private:
    [[nodiscard]] bool look_for_room(std::uint64_t size, std::uint64_t looks) noexcept override {
        return bus_.spin_writable(size, looks);
    }
    [[nodiscard]] Status sleep_for_room(std::uint64_t size, std::uint64_t until) noexcept override {
        return bus_.wait_writable(size, until);
    }

    // A consumer that sleeps makes no room.
    [[nodiscard]] Status told(Status status) noexcept {
        if (status == Status::full) bus_.wake_consumer();
        return status;
    }

    Bus& bus_;
};

}  // namespace tachyon
