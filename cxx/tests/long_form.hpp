// Purpose: how long tests may take. Apart from support.hpp, because main.cpp shall not depend on the core: with Catch2 2 it is
//   what takes longest to compile.
#pragma once

#include <cstdlib>
#include <cstring>

namespace tachyon::test {

inline constexpr unsigned kWatchdogSeconds = 120;  // for one test; sixty times that in the long form

// TACHYON_LONG=1: minutes instead of seconds of everything that has no natural end.
inline bool long_form() {
    const char* const value = std::getenv("TACHYON_LONG");
    return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
}

}  // namespace tachyon::test
