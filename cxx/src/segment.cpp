#include "tachyon/segment.hpp"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>
#include <optional>
#include <string>

namespace tachyon {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

[[noreturn]] void fail_memory(std::uint64_t bytes, int error_number, const std::string& doing) {
    throw SetupError(SetupFailure::memory, error_number,
                     "cannot get " + std::to_string(bytes) + " bytes of shared memory (" + doing + ": " +
                         std::strerror(error_number) + "); use a smaller capacity or free some memory");
}

[[noreturn]] void fail_descriptor(int error_number, const std::string& doing) {
    throw SetupError(SetupFailure::handshake, error_number,
                     doing + ": " + std::strerror(error_number) + "; close some descriptors or raise `ulimit -n`");
}

[[noreturn]] void refuse(const std::string& why) {
    throw SetupError(SetupFailure::handshake, EPROTO, "the peer's segment was refused: " + why);
}

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
        fail_memory(bytes, ENOMEM, std::to_string(available) + " bytes are available");
    }
}

// In pieces, because a signal makes the kernel give up and undo the whole call.
void reserve(int descriptor, std::uint64_t bytes) {
    constexpr std::uint64_t kMostAtOnce = 1 << 20, kLeastAtOnce = 4096;
    std::uint64_t piece = kMostAtOnce;
    for (std::uint64_t done = 0; done < bytes;) {
        const std::uint64_t next = std::min(piece, bytes - done);
        if (::fallocate(descriptor, 0, static_cast<off_t>(done), static_cast<off_t>(next)) == 0) {
            done += next;
        } else if (errno == EINTR) {
            piece = std::max(kLeastAtOnce, piece / 2);
        } else {
            fail_memory(bytes, errno, "fallocate");
        }
    }
}

}  // namespace

void check_capacity(std::uint64_t capacity) {
    if (is_valid_capacity(capacity)) return;
    throw SetupError(SetupFailure::capacity, EINVAL,
                     "capacity must be a power of two between " + std::to_string(kMinCapacity) + " and " +
                         std::to_string(kMaxCapacity) + " bytes, not " + std::to_string(capacity));
}

Segment Segment::create(std::uint64_t capacity) {
    check_capacity(capacity);
    Segment segment;
    segment.capacity_ = capacity;
    const std::uint64_t bytes = segment.bytes();
    check_available(bytes);
    segment.descriptor_ = Descriptor(::memfd_create("tachyon", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!segment.descriptor_) {
        if (errno == EMFILE || errno == ENFILE) fail_descriptor(errno, "memfd_create");
        fail_memory(bytes, errno, "memfd_create");
    }
    if (::ftruncate(segment.descriptor(), static_cast<off_t>(bytes)) != 0) fail_memory(bytes, errno, "ftruncate");
    reserve(segment.descriptor(), bytes);
    if (::fcntl(segment.descriptor(), F_ADD_SEALS, kSeals) != 0) fail_memory(bytes, errno, "sealing");
    segment.map();
    auto* const header = new (segment.mapping_) SegmentHeader{};
    header->magic = kSegmentMagic;
    header->version = kProtocolVersion;
    header->header_bytes = kHeaderBytes;
    header->capacity = capacity;
    return segment;
}

Segment Segment::attach(Descriptor descriptor, std::uint64_t capacity) {
    if (!is_valid_capacity(capacity)) refuse("capacity " + std::to_string(capacity));
    Segment segment;
    segment.capacity_ = capacity;
    segment.descriptor_ = std::move(descriptor);
    // The kind first: only a memfd has seals, and no call below can block on anything else that was passed.
    const int seals = ::fcntl(segment.descriptor(), F_GET_SEALS);
    if (seals < 0) refuse("its descriptor is not a memfd");
    if ((seals & kSeals) != kSeals) refuse("it can still be resized (seals " + std::to_string(seals) + ")");
    const int access = ::fcntl(segment.descriptor(), F_GETFL);
    if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0 || (access & O_ACCMODE) != O_RDWR) {
        refuse("it cannot be written to");
    }
    struct stat status{};
    if (::fstat(segment.descriptor(), &status) != 0) refuse(std::string("fstat: ") + std::strerror(errno));
    // A memfd shorter than announced maps without complaint and then raises SIGBUS.
    if (status.st_size < 0 || static_cast<std::uint64_t>(status.st_size) != segment.bytes()) {
        refuse("it has " + std::to_string(status.st_size) + " bytes, not " + std::to_string(segment.bytes()));
    }
    segment.map();
    const SegmentHeader* const header = segment.header();
    if (header->magic != kSegmentMagic || header->version != kProtocolVersion || header->header_bytes != kHeaderBytes ||
        header->capacity != capacity) {
        refuse("its header page does not say what the handshake said");
    }
    return segment;
}

void Segment::map() {
    void* const address =
        ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor_.get(), 0);
    if (address == MAP_FAILED) fail_memory(bytes(), errno, "mmap");
    mapping_ = address;
}

void Segment::unmap() noexcept {
    if (mapping_ != nullptr) ::munmap(std::exchange(mapping_, nullptr), bytes());
}

Segment::Segment(Segment&& other) noexcept
    : descriptor_(std::move(other.descriptor_)),
      mapping_(std::exchange(other.mapping_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)) {}

Segment& Segment::operator=(Segment&& other) noexcept {
    if (this != &other) {
        unmap();
        descriptor_ = std::move(other.descriptor_);
        mapping_ = std::exchange(other.mapping_, nullptr);
        capacity_ = std::exchange(other.capacity_, 0);
    }
    return *this;
}

Segment::~Segment() { unmap(); }

int Segment::bind_to_node(unsigned node) const noexcept {
    constexpr unsigned kBits = 8 * sizeof(unsigned long), kWords = 1024 / kBits;
    if (node >= kBits * kWords) return EINVAL;
    std::array<unsigned long, kWords> nodes{};
    nodes[node / kBits] = 1ul << (node % kBits);
    const long rc =
        ::syscall(SYS_mbind, mapping_, bytes(), MPOL_PREFERRED, nodes.data(), kBits * kWords + 1, MPOL_MF_MOVE);
    return rc == 0 || errno == ENOSYS ? 0 : errno;
}

}  // namespace tachyon
