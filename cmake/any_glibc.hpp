// Included before everything else when the libtachyon.a of a wheel is compiled (scripts/wheels).
//
// libstdc++'s shared_ptr asks glibc 2.32 or later whether there is only one thread, and what was compiled to ask cannot be
// linked on an older system. So: never only one. Mixed with code that asks, both stay right: one side is careful for nothing.
#pragma once

#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
inline constexpr char tachyon_only_one_thread = 0;
#define __libc_single_threaded tachyon_only_one_thread  // NOLINT
#endif
