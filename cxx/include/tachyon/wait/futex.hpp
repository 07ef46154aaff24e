// Purpose: what the ring asks of the kernel: to sleep on a word in shared memory, to wake who sleeps there, and a barrier in every
//   running thread of the peer. Header-only, like the ring. The rest of what differs between systems is cxx/src/platform/.
// Threads: any. Lifetime: the word stays mapped during a call. Ordering: none but what is said at membarrier().
//
// Linux: futex(2) and membarrier(2). macOS: __ulock_wait2 and __ulock_wake, which every release since 11 has and its own C++
// library sleeps on; os_sync_wait_on_address, its public face, came with 14.4 only. There is no membarrier there, so both sides
// pay for their own barrier. Compiled for macOS, never run there.
#pragma once

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#elif defined(__APPLE__)
extern "C" {
int __ulock_wait2(std::uint32_t operation, void* address, std::uint64_t value, std::uint64_t timeout_ns, std::uint64_t);
int __ulock_wake(std::uint32_t operation, void* address, std::uint64_t thread);
}
#else
#error "tachyon knows Linux and macOS: another system needs its own branches here and in cxx/src/platform/"
#endif

namespace tachyon {

#if defined(__linux__)

// Sleeps for at most `ns` while the word is `expected`. 0: woken, or it was not; else EINTR, ETIMEDOUT.
inline int futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, std::uint64_t ns) noexcept {
    const timespec relative{static_cast<time_t>(ns / 1'000'000'000u), static_cast<long>(ns % 1'000'000'000u)};
    // Shared, here and below: no FUTEX_PRIVATE_FLAG.
    if (::syscall(SYS_futex, &word, FUTEX_WAIT, expected, &relative, nullptr, 0) == 0 || errno == EAGAIN) return 0;
    return errno;
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    ::syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// True if it returned 0 in this process, which is all that may be promised to a peer. Cheap; call it before each handshake.
inline bool register_membarrier() noexcept {
    return ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

// A full barrier here and in every running thread of every registered process. False: refused.
inline bool membarrier() noexcept { return ::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0; }

// The same for the threads of this process alone. The kernel leaves none of them out (wait.hpp says where it leaves out some).
inline bool register_own_membarrier() noexcept {
    return ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}
inline bool own_membarrier() noexcept { return ::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0; }

#elif defined(__APPLE__)

inline constexpr std::uint32_t kCompareAndWaitShared = 3, kWakeAll = 0x100;  // xnu: bsd/sys/ulock.h

inline int futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t expected, std::uint64_t ns) noexcept {
    if (ns == 0) return ETIMEDOUT;  // which would mean for ever
    if (::__ulock_wait2(kCompareAndWaitShared, &word, expected, ns, 0) >= 0 || errno == EFAULT) return 0;
    return errno;
}

inline void futex_wake_all(std::atomic<std::uint32_t>& word) noexcept {
    ::__ulock_wake(kCompareAndWaitShared | kWakeAll, &word, 0);
}

inline bool register_membarrier() noexcept { return false; }
inline bool membarrier() noexcept { return false; }
inline bool register_own_membarrier() noexcept { return false; }
inline bool own_membarrier() noexcept { return false; }

#endif

}  // namespace tachyon
