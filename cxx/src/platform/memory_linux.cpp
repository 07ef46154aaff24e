// Linux: sealed memfds, and what may be taken for them.
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <optional>
#include <utility>

#include "platform/memory.hpp"
#include "tachyon/error.hpp"

namespace tachyon {

namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

std::optional<std::uint64_t> read_number(const std::string& path) {
    std::ifstream file(path);
    std::uint64_t value = 0;
    if (file >> value) return value;
    return std::nullopt;  // missing, or "max"
}

// What the memory cgroup of this process, and those above it, still allow.
std::uint64_t cgroup_bytes_left() {
    std::uint64_t left = UINT64_MAX;
    const auto ask = [&left](const std::string& folder, const char* limit, const char* usage) {
        const auto most = read_number(folder + limit);
        const auto used = read_number(folder + usage);
        if (most && used) left = std::min(left, *most > *used ? *most - *used : 0);
    };
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        const auto second = line.find(':', line.find(':') + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(line.find(':') + 1, second - line.find(':') - 1);
        const bool v2 = controllers.empty();
        if (!v2 && controllers != "memory") continue;
        for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
            const std::string folder = (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory") + path;
            if (v2) {
                ask(folder, "/memory.max", "/memory.current");
            } else {
                ask(folder, "/memory.limit_in_bytes", "/memory.usage_in_bytes");
            }
            if (path.rfind('/') == std::string::npos) break;
        }
    }
    return left;
}

// A memfd takes its pages from the machine without asking anybody: without this look a reservation that does not fit would
// end in the out-of-memory killer instead of an error.
void check_available(std::uint64_t bytes) {
    std::uint64_t available = UINT64_MAX;
    std::ifstream info("/proc/meminfo");
    for (std::string line; std::getline(info, line);) {
        unsigned long long kib = 0;
        if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kib) == 1) {
            available = std::uint64_t{kib} * 1024;
            break;
        }
    }
    available = std::min(available, cgroup_bytes_left());
    if (bytes > available) {
        fail_memory(ENOMEM, bytes, std::to_string(available) + " bytes are available");
    }
}

}  // namespace

// In pieces, because a signal makes the kernel give up and undo the whole call.
void reserve_memory(int descriptor, std::uint64_t begin, std::uint64_t size, std::uint64_t total) {
    constexpr std::uint64_t kMostAtOnce = 1 << 20, kLeastAtOnce = 4096;
    std::uint64_t piece = kMostAtOnce;
    for (std::uint64_t done = 0; done < size;) {
        const std::uint64_t next = std::min(piece, size - done);
        if (::fallocate(descriptor, 0, static_cast<off_t>(begin + done), static_cast<off_t>(next)) == 0) {
            done += next;
        } else if (errno == EINTR) {
            piece = std::max(kLeastAtOnce, piece / 2);
        } else {
            fail_memory(errno, total, "fallocate");
        }
    }
}

void populate_memory(std::uint8_t* begin, std::uint64_t size, Access access) noexcept {
    constexpr int kPopulateRead = 22, kPopulateWrite = 23;  // MADV_POPULATE_…, from Linux 5.14
    if (::madvise(begin, size, access == Access::read_only ? kPopulateRead : kPopulateWrite) == 0) return;
    for (std::uint64_t at = 0; at < size; at += 4096) (void)static_cast<const volatile std::uint8_t*>(begin)[at];
}

void discard_memory(int descriptor, std::uint64_t begin, std::uint64_t size) noexcept {
    (void)::fallocate(descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(begin),
                      static_cast<off_t>(size));
}

Descriptor make_shared_memory(std::uint64_t bytes) {
    check_available(bytes);
    Descriptor memory(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) {
        if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "memfd_create");
        fail_memory(errno, bytes, "memfd_create");
    }
    if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) fail_memory(errno, bytes, "ftruncate");
    if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) fail_memory(errno, bytes, "sealing");
    return memory;
}

Descriptor share_memory_to_read(int descriptor, std::uint64_t bytes) {
    // Opened anew: a copy of ours would let its holder write.
    Descriptor shared(::open(("/proc/self/fd/" + std::to_string(descriptor)).c_str(), O_RDONLY | O_CLOEXEC));
    if (!shared) {
        if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "cannot share memory");
        fail_memory(errno, bytes, "sharing it to be read");
    }
    return shared;
}

std::string refusal_of_memory(int descriptor, std::uint64_t bytes, Access access) {
    // The kind first: only a memfd has seals, and no call below can block on anything else that was passed.
    const int seals = ::fcntl(descriptor, F_GET_SEALS);
    if (seals < 0) return "its descriptor is not a memfd";
    if ((seals & kSeals) != kSeals) return "it can still be resized (seals " + std::to_string(seals) + ")";
    const int mode = ::fcntl(descriptor, F_GETFL) & O_ACCMODE;
    const bool sealed = (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0;
    if (access == Access::read_write && (sealed || mode != O_RDWR)) return "it cannot be written to";
    if (access == Access::read_only && mode != O_RDONLY) return "it is not for reading only";
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return std::string("fstat: ") + std::strerror(errno);
    // A memfd shorter than announced maps without complaint and then raises SIGBUS.
    if (std::cmp_not_equal(status.st_size, bytes)) {
        return "it has " + std::to_string(status.st_size) + " bytes, not " + std::to_string(bytes);
    }
    return {};
}

std::uint64_t unreserved_memory(int descriptor, std::uint64_t bytes) noexcept {
    struct stat status{};
    if (::fstat(descriptor, &status) != 0) return bytes;
    const std::uint64_t reserved = static_cast<std::uint64_t>(status.st_blocks) * 512;
    if (reserved < bytes) return bytes - reserved;
    return 0;
}

std::uint64_t first_hole(int descriptor, std::uint64_t bytes) noexcept {
    const off_t hole = ::lseek(descriptor, 0, SEEK_HOLE);
    if (hole >= 0) return std::min(static_cast<std::uint64_t>(hole), bytes);
    return errno == EINVAL ? bytes : 0;  // sandboxes that have memfds, and no SEEK_HOLE
}

void* map_shared_memory(int descriptor, std::uint64_t bytes, Access access) {
    const int protection = access == Access::read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void* const address = ::mmap(nullptr, bytes, protection, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) fail_memory(errno, bytes, "mmap");
    return address;
}

int bind_memory_to_node(const void* memory, std::uint64_t bytes, unsigned node) noexcept {
    constexpr unsigned kBits = 8 * sizeof(unsigned long), kWords = 1024 / kBits;
    if (node >= kBits * kWords) return EINVAL;
    std::array<unsigned long, kWords> nodes{};
    nodes[node / kBits] = 1ul << (node % kBits);
    const long rc = ::syscall(SYS_mbind, memory, bytes, MPOL_PREFERRED, nodes.data(), kBits * kWords + 1, MPOL_MF_MOVE);
    return rc == 0 || errno == ENOSYS ? 0 : errno;
}

// ---- parcels -------------------------------------------------------------------------------------------------------------

const bool kHasParcels = true;

namespace {

// What asks how much memory there is takes a tenth of a millisecond: as long as copying half a MiB.
constexpr std::uint64_t kAskFrom = 4 << 20;
constexpr long kHugePages = 0x958458f6;  // HUGETLBFS_MAGIC: its mappings come in other sizes than ours

template <class Call>
int as_errno(Call call) noexcept {
    try {
        call();
        return 0;
    } catch (const SetupError& error) {
        return error.error_number();
    } catch (const std::exception&) {
        return ENOMEM;
    }
}

}  // namespace

int make_parcel(std::uint64_t bytes, Descriptor& memory) noexcept {
    if (bytes >= kAskFrom) {
        if (const int error = as_errno([&] { check_available(bytes); }); error != 0) return error;
    }
    memory = Descriptor(::memfd_create("tachyon-parcel", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) return errno;
    return ::ftruncate(memory.get(), static_cast<off_t>(bytes)) == 0 ? 0 : errno;
}

// A half of what mapping, touching and copying would take: no page is cleared before it is filled, and none is mapped.
int write_parcel(int descriptor, std::uint64_t start, const void* data, std::uint64_t bytes) noexcept {
    const auto* const from = static_cast<const char*>(data);
    for (std::uint64_t done = 0; done < bytes;) {
        const ssize_t n = ::pwrite(descriptor, from + done, bytes - done, static_cast<off_t>(start + done));
        if (n < 0 && errno != EINTR) return errno;
        if (n > 0) done += static_cast<std::uint64_t>(n);
    }
    return 0;
}

int map_parcel_to_write(int descriptor, std::uint64_t bytes, void*& memory) noexcept {
    if (const int error = as_errno([&] { reserve_memory(descriptor, 0, bytes, bytes); }); error != 0) return error;
    void* const address = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) return errno;
    populate_memory(static_cast<std::uint8_t*>(address), bytes, Access::read_write);
    memory = address;
    return 0;
}

int seal_parcel(int descriptor, std::uint64_t bytes) noexcept {
    if (::ftruncate(descriptor, static_cast<off_t>(bytes)) != 0) return errno;
    if (::fcntl(descriptor, F_ADD_SEALS, kSeals | F_SEAL_WRITE) == 0) return 0;
    // A child that was forked meanwhile has it mapped: then nobody can map it to write any more, which is enough.
    return errno == EBUSY && ::fcntl(descriptor, F_ADD_SEALS, kSeals | F_SEAL_FUTURE_WRITE) == 0 ? 0 : errno;
}

int map_parcel_to_read(int descriptor, std::uint64_t bytes, void*& memory) noexcept {
    const int seals = ::fcntl(descriptor, F_GET_SEALS);  // first: no call below can block on a memfd
    if (seals < 0 || (seals & kSeals) != kSeals || (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) == 0) return EPROTO;
    struct stat status{};
    if (::fstat(descriptor, &status) != 0 || std::cmp_not_equal(status.st_size, bytes)) return EPROTO;
    if (first_hole(descriptor, bytes) != bytes) return EPROTO;
    struct statfs system{};
    if (::fstatfs(descriptor, &system) != 0 || system.f_type == kHugePages) return EPROTO;
    // Private: kernels before 6.7 refuse a shared mapping of what is sealed against writing. Nobody writes, so no page is copied.
    void* const address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (address == MAP_FAILED) return errno == EACCES || errno == EPERM ? EPROTO : errno;
    memory = address;
    return 0;
}

}  // namespace tachyon
