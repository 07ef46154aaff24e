#include "tachyon/shm/parcel.hpp"

#include <sys/mman.h>

#include "platform/memory.hpp"

namespace tachyon {

bool Parcel::supported() noexcept { return kHasParcels; }

Parcel& Parcel::operator=(Parcel&& other) noexcept {
    if (this != &other) {
        unmap();
        descriptor_ = std::move(other.descriptor_);
        mapping_ = std::exchange(other.mapping_, nullptr);
        mapped_ = std::exchange(other.mapped_, 0);
        bytes_ = std::exchange(other.bytes_, 0);
        sealed_ = std::exchange(other.sealed_, false);
    }
    return *this;
}

Parcel::~Parcel() { unmap(); }

void Parcel::unmap() noexcept {
    if (mapping_ != nullptr) ::munmap(std::exchange(mapping_, nullptr), std::exchange(mapped_, 0));
}

int Parcel::fill(const void* data, std::uint64_t bytes) noexcept {
    reset();
    int error = make_parcel(kLead + bytes, descriptor_);
    if (error == 0) error = write_parcel(descriptor(), kLead, data, bytes);
    if (error == 0) error = seal(bytes);
    return error;
}

int Parcel::make(std::uint64_t bytes) noexcept {
    reset();
    int error = make_parcel(kLead + bytes, descriptor_);
    if (error == 0) error = map_parcel_to_write(descriptor(), kLead + bytes, mapping_);
    if (error != 0) return error;
    mapped_ = kLead + bytes;
    bytes_ = bytes;
    return 0;
}

int Parcel::seal(std::uint64_t bytes) noexcept {
    if (sealed_) return 0;
    unmap();
    const int error = seal_parcel(descriptor(), kLead + bytes);
    sealed_ = error == 0;
    if (sealed_) bytes_ = bytes;
    return error;
}

int Parcel::attach(int descriptor, std::uint64_t bytes) noexcept {
    reset();
    const int error = map_parcel_to_read(descriptor, kLead + bytes, mapping_);
    if (error != 0) return error;
    mapped_ = kLead + bytes;
    bytes_ = bytes;
    return 0;
}

}  // namespace tachyon
