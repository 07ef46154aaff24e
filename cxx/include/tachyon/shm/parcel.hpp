// Purpose: the memory of one message that does not fit its ring: written by who sends it, sealed for good, and mapped to be read by
//   who receives it.
// Threads: one at a time. Lifetime: the mapping, and the descriptor of who made it, live as long as the Parcel. Of who receives it the
//   mapping alone keeps the memory.
// Ordering: none; it is sealed before its descriptor leaves the process.
#pragma once

#include <cstdint>
#include <utility>

#include "tachyon/link/descriptor.hpp"

namespace tachyon {

// All that can fail returns 0 or an errno.
class Parcel {
  public:
    // Bytes before the message that nobody looks at: it begins as far into a line as in a ring, so that what lies on a line there,
    // an array's data for instance, does so here.
    static constexpr std::uint64_t kLead = 16;

    // Are there any on this system?
    static bool supported() noexcept;

    Parcel() noexcept = default;
    Parcel(Parcel&& other) noexcept { *this = std::move(other); }
    Parcel& operator=(Parcel&& other) noexcept;
    Parcel(const Parcel&) = delete;
    Parcel& operator=(const Parcel&) = delete;
    ~Parcel();

    // ---- by who sends ----

    // Either with these bytes, sealed; or empty, to be written at memory() and then sealed.
    [[nodiscard]] int fill(const void* data, std::uint64_t bytes) noexcept;
    [[nodiscard]] int make(std::uint64_t bytes) noexcept;
    // Cut down to so many bytes. What was mapped is not any more. Once done it does nothing.
    [[nodiscard]] int seal(std::uint64_t bytes) noexcept;
    [[nodiscard]] bool is_sealed() const noexcept { return sealed_; }
    [[nodiscard]] int descriptor() const noexcept { return descriptor_.get(); }

    // ---- by who receives ----

    // Maps what was passed, which stays the caller's. EPROTO: it is not what it should be, and nothing was mapped.
    [[nodiscard]] int attach(int descriptor, std::uint64_t bytes) noexcept;

    // ---- either ----

    [[nodiscard]] std::uint8_t* memory() const noexcept {
        return mapping_ == nullptr ? nullptr : static_cast<std::uint8_t*>(mapping_) + kLead;
    }
    [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }
    explicit operator bool() const noexcept { return bytes_ != 0; }
    void reset() noexcept { *this = Parcel(); }

  private:
    void unmap() noexcept;

    Descriptor descriptor_;
    void* mapping_ = nullptr;
    std::uint64_t bytes_ = 0;
    std::uint64_t mapped_ = 0;  // bytes
    bool sealed_ = false;
};

}  // namespace tachyon
