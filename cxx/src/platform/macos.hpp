// Purpose: what the files of macOS share. Threads: any. Ordering: none.
//
// They are compiled and linked for arm64 and x86_64 (scripts/check_macos), never run. What is said there of its kernel was read in
// the published source of xnu 11417 (macOS 15), in the files named.
#pragma once

#include <fcntl.h>

namespace tachyon {

inline void set_cloexec(int descriptor) noexcept { ::fcntl(descriptor, F_SETFD, FD_CLOEXEC); }

}  // namespace tachyon
