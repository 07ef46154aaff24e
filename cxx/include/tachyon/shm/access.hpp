// Purpose: what a process may do with a segment. Threads: values only. Lifetime, ordering: none.
#pragma once

#include <cstdint>

namespace tachyon {

// The numbers are said in the handshake: append, never renumber.
enum class Access : std::uint32_t { read_only = 1, read_write = 2 };

}  // namespace tachyon
