// Set-up in a process whose memory ends: always a SetupError that says so, never another exception, and nothing left of it.
#include <atomic>
#include <cstdlib>
#include <new>
#include <utility>

#include "catch.hpp"
#include "handshake_peers.hpp"
#include "support.hpp"
#include "tachyon/listener.hpp"
#include "tachyon/rpc.hpp"

namespace {

thread_local int until_failure = -1;  // allocations of this thread that go well before one does not; -1: all of them

}  // namespace

// Not inlined: GCC would see memory of new that is given to free.
// NOLINTBEGIN(cppcoreguidelines-no-malloc)
[[gnu::noinline]] void* operator new(std::size_t size) {
    if (until_failure >= 0 && until_failure-- == 0) throw std::bad_alloc();
    if (void* const memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
// A sanitizer's own would otherwise meet our delete.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return std::malloc(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
// NOLINTEND(cppcoreguidelines-no-malloc)

using namespace tachyon;
using namespace tachyon::test;

namespace {

#if !TACHYON_TEST_TSAN
// Lets the first allocation fail, then only the second one, and so on until the call goes well. How many it was.
template <class Call>
int starve(Call call) {
    for (int n = 0; n < 1000; ++n) {
        INFO("allocation " << n);
        until_failure = n;
        try {
            call();
        } catch (const SetupError& error) {
            until_failure = -1;
            INFO(error.what());
            CHECK(error.failure() == SetupFailure::memory);
            CHECK(error.error_number() == ENOMEM);
        }
        if (std::exchange(until_failure, -1) >= 0) return n;
    }
    return -1;
}

#endif

}  // namespace

#if !TACHYON_TEST_TSAN  // which loses sight of what is allocated where operator new is another one

TEST_CASE("a listener without memory for its records says so") {
    const Folder folder;
    const Held before;
    const std::string path = folder.file();
    const ListenOptions options = listen_options();
    CHECK(starve([&] { const Listener listener(path, options); }) > 3);
    CHECK_FALSE(exists(path));
    CHECK(Held{} == before);
}

TEST_CASE("a listener without memory for one more client says so, and the next one is served") {
    const Folder folder;
    const Held before;
    {
        Listener listener(folder.file(), listen_options());
        std::vector<std::unique_ptr<Aside>> clients;
        // Each client brings the listener through all that it allocates, but for the one that fails.
        const auto accept_one = [&] {
            const int left = std::exchange(until_failure, -1);
            clients.push_back(std::make_unique<Aside>([path = folder.file()](const Interrupt& interrupt) {
                return connect(path, connect_options(), interrupt);
            }));
            const std::uint64_t deadline = in_ms(30'000);
            until_failure = left;
            (void)listener.accept(deadline);
        };
        CHECK(starve(accept_one) > 2);
    }
    CHECK(Held{} == before);
}

TEST_CASE("a connector without memory for its records says so") {
    const Folder folder;
    const Held before;
    {
        std::atomic<bool> stop{false};
        Listener listener(folder.file(), listen_options());
        std::thread serving([&] {
            while (!stop) {
                try {
                    (void)listener.accept(in_ms(20));
                } catch (const SetupError&) {}
            }
        });
        const std::string path = folder.file();
        ConnectOptions options = connect_options();
        CHECK(starve([&] { (void)connect(path, options); }) > 3);
        CHECK(starve([&] { (void)Bus::connect(path, options); }) > 5);
        stop = true;
        serving.join();
    }
    CHECK(Held{} == before);
}

TEST_CASE("two rings over one connection are made whole or not at all") {
    const Held before;
    const Folder folder;
    CHECK(starve([&] {
              const int left = std::exchange(until_failure, -1);
              ListenOptions options = listen_options();
              options.kind = Kind::rpc;
              options.capacities = {4096, 4096};
              Aside listener = listening(folder.file(), options);
              ConnectOptions wanted = connect_options();
              wanted.kind = Kind::rpc;
              Established there = connect(folder.file(), wanted);
              listener.join();
              until_failure = left;
              (void)adopt_rpc(std::move(there));
          }) > 2);
    CHECK(Held{} == before);
}

#endif
