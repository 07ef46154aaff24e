// macOS: unlinked POSIX shared memory. Weaker than on Linux: memory is not reserved, and nobody can be let in to read only.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "platform/macos.hpp"
#include "platform/memory.hpp"
#include "tachyon/error.hpp"

namespace tachyon {

namespace {

std::uint64_t round_to_page(std::uint64_t bytes) {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    return (bytes + page - 1) / page * page;
}

// It pages to disk rather than refuse; more than the machine has is an error all the same.
void check_available(std::uint64_t bytes) {
    std::uint64_t memory = 0;
    std::size_t length = sizeof memory;
    if (::sysctlbyname("hw.memsize", &memory, &length, nullptr, 0) == 0 && bytes > memory) {
        fail_memory(ENOMEM, bytes, "the machine has " + std::to_string(memory));
    }
}

}  // namespace

// The size of such an object can be set once only (pshm_truncate in bsd/kern/posix_shm.c): it needs no seals.
Descriptor make_shared_memory(std::uint64_t bytes) {
    check_available(bytes);
    for (int attempt = 0;; ++attempt) {
        std::array<unsigned, 2> random{};
        (void)::getentropy(random.data(), sizeof random);
        std::array<char, 32> name{};  // 31 bytes are the most (PSHMNAMLEN)
        (void)std::snprintf(name.data(), name.size(), "/tachyon-%08x%08x", random[0], random[1]);
        Descriptor memory(::shm_open(name.data(), O_RDWR | O_CREAT | O_EXCL, 0600));
        if (!memory) {
            if (errno == EEXIST && attempt < 8) continue;
            if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "shm_open");
            fail_memory(errno, bytes, "shm_open");
        }
        ::shm_unlink(name.data());
        set_cloexec(memory.get());
        if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) fail_memory(errno, bytes, "ftruncate");
        return memory;
    }
}

// An object without a name cannot be opened anew, and a copy of the descriptor would let its holder write.
Descriptor share_memory_to_read(int, std::uint64_t bytes) { fail_memory(ENOTSUP, bytes, "sharing it to be read"); }

std::string refusal_of_memory(int descriptor, std::uint64_t bytes, Access access) {
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return std::string("fstat: ") + std::strerror(errno);
    // Everything else that can be passed has a type: pshm_stat gives the permissions only.
    if ((status.st_mode & S_IFMT) != 0) return "its descriptor is not POSIX shared memory";
    const int mode = ::fcntl(descriptor, F_GETFL) & O_ACCMODE;
    if (access == Access::read_write && mode != O_RDWR) return "it cannot be written to";
    if (access == Access::read_only && mode != O_RDONLY) return "it is not for reading only";
    const std::uint64_t wanted = round_to_page(bytes);
    if (std::cmp_not_equal(status.st_size, wanted)) {
        return "it has " + std::to_string(status.st_size) + " bytes, not " + std::to_string(wanted);
    }
    return {};
}

std::uint64_t unreserved_memory(int, std::uint64_t) noexcept { return 0; }

std::uint64_t first_hole(int, std::uint64_t bytes) noexcept { return bytes; }

void* map_shared_memory(int descriptor, std::uint64_t bytes, Access access) {
    const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void* const address = ::mmap(nullptr, bytes, protection, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) fail_memory(errno, bytes, "mmap");
    return address;
}

void reserve_memory(int, std::uint64_t, std::uint64_t, std::uint64_t) {}

void discard_memory(int, std::uint64_t, std::uint64_t) noexcept {}

void populate_memory(std::uint8_t* begin, std::uint64_t size, Access) noexcept {
    const auto page = static_cast<std::uint64_t>(::getpagesize());
    for (std::uint64_t at = 0; at < size; at += page) (void)static_cast<const volatile std::uint8_t*>(begin)[at];
}

int bind_memory_to_node(const void*, std::uint64_t, unsigned) noexcept { return 0; }

// Nothing here can be sealed against writing, nor reserved.
const bool kHasParcels = false;
int make_parcel(std::uint64_t, Descriptor&) noexcept { return ENOTSUP; }
int write_parcel(int, std::uint64_t, const void*, std::uint64_t) noexcept { return ENOTSUP; }
int map_parcel_to_write(int, std::uint64_t, void*&) noexcept { return ENOTSUP; }
int seal_parcel(int, std::uint64_t) noexcept { return ENOTSUP; }
int map_parcel_to_read(int, std::uint64_t, void*&) noexcept { return ENOTSUP; }

}  // namespace tachyon
