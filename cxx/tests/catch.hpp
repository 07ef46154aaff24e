// Purpose: Catch2 2.13 and 3 under one name. The tests include this and nothing of Catch2 itself.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
namespace tachyon::test {
using ListenerBase = Catch::EventListenerBase;
}
#else
#include <catch2/catch.hpp>
#if defined(CATCH_CONFIG_RUNNER)  // elsewhere version 2 does not have it
namespace tachyon::test {
using ListenerBase = Catch::TestEventListenerBase;
}
#endif
#endif
