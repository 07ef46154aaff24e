// Purpose: the copy of a payload into the ring, and the fetching of lines before they are written.
// Threads, lifetime, ordering: as memcpy.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tachyon/ring/layout.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace tachyon::detail {

template <std::size_t N>
inline void copy_bytes(std::uint8_t* to, const std::uint8_t* from) noexcept {
    std::memcpy(to, from, N);
}

// At most 48 bytes by overlapping fixed-size moves: a call to memcpy would cost as much as the rest of the frame.
inline void copy_one_line(std::uint8_t* to, const std::uint8_t* from, std::uint64_t size) noexcept {
    if (size >= 32) {
        copy_bytes<32>(to, from);
        copy_bytes<16>(to + size - 16, from + size - 16);
    } else if (size >= 16) {
        copy_bytes<16>(to, from);
        copy_bytes<16>(to + size - 16, from + size - 16);
    } else if (size >= 8) {
        copy_bytes<8>(to, from);
        copy_bytes<8>(to + size - 8, from + size - 8);
    } else if (size >= 4) {
        copy_bytes<4>(to, from);
        copy_bytes<4>(to + size - 4, from + size - 4);
    } else if (size > 0) {
        to[0] = from[0];
        to[size / 2] = from[size / 2];
        to[size - 1] = from[size - 1];
    }
}

// Hints that lines will be written. Which of the two pays depends on who wrote them last: lines that the consumer has cleared
// are in its cache alone and come whole with a plain prefetch; lines that it has only read are in both, and a plain prefetch
// would leave them shared, so that the store asks again (measured: half the speed). docs/adr/0008-lines-before-they-are-written.md.
// As assembly, because GCC takes a function that does nothing but __builtin_prefetch for one that does nothing, and may drop its calls.
#if defined(__x86_64__)
inline void fetch_cleared(const std::uint8_t* line) noexcept { asm volatile("prefetcht0 %0" ::"m"(*line)); }
// What __builtin_prefetch(line, 1) is only with -mprfchw; a NOP where unknown.
inline void fetch_read(const std::uint8_t* line) noexcept { asm volatile("prefetchw %0" ::"m"(*line)); }
#elif defined(__aarch64__)
inline void fetch_cleared(const std::uint8_t* line) noexcept { asm volatile("prfm pldl1keep, %0" ::"Q"(*line)); }
inline void fetch_read(const std::uint8_t* line) noexcept { asm volatile("prfm pstl1keep, %0" ::"Q"(*line)); }
#else
inline void fetch_cleared(const std::uint8_t* line) noexcept { __builtin_prefetch(line, 0, 3); }
inline void fetch_read(const std::uint8_t* line) noexcept { __builtin_prefetch(line, 1, 3); }
#endif

inline constexpr std::uint64_t kFetchAhead = 1024;

// A payload of a frame whose lines the consumer has not cleared. Above 2 KiB or so glibc's memcpy becomes `rep movsb`, which is slow
// towards an address that is not a line's; wider vectors than these made no difference. From a line's beginning on it is the best for
// long payloads; in pieces, because what it finds very large it writes past the cache.
inline void copy_bulk(std::uint8_t* to, const std::uint8_t* from, std::uint64_t size) noexcept {
    constexpr std::uint64_t kPiece = 64 << 10;
    if (size >= kPiece) {
        copy_bytes<kOneLinePayload>(to, from);
        for (std::uint64_t at = kOneLinePayload; at < size; at += kPiece)
            std::memcpy(to + at, from + at, std::min(kPiece, size - at));
        return;
    }
#if defined(__SSE2__)
    const auto load = [&](std::uint64_t at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + at)); };
    const auto store = [&](std::uint64_t at, __m128i part) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + at), part);
    };
    const auto copy_line = [&](std::uint64_t i) {
        const __m128i a = load(i), b = load(i + 16), c = load(i + 32),
                      d = load(i + 48);  // an array would go by the stack
        store(i, a);
        store(i + 16, b);
        store(i + 32, c);
        store(i + 48, d);
        asm volatile("" ::: "memory");  // or the compiler may make a call of memcpy of the loop
    };
    std::uint64_t i = 0;
    for (; i + kFetchAhead < size; i += kLine) {
        fetch_read(to + i + kFetchAhead);
        copy_line(i);
    }
    for (; i + kLine <= size; i += kLine) copy_line(i);
    std::memcpy(to + i, from + i, size - i);
#else
    std::memcpy(to, from, size);
#endif
}

}  // namespace tachyon::detail
