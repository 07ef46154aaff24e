// A listener without memory, descriptors or a parent.
#include <poll.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <optional>

#include "catch.hpp"
#include "listener_peers.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

#if TACHYON_TEST_TSAN

int main() {
    std::puts("left out: these tests fork, or count what one process holds");
    return 77;
}

#else

TEST_CASE("a client that is dropped keeps no memory of the listener's") {
    const Folder folder;
    Listener listener(folder.file(), many());
    const Descriptor client = greet(folder.file());
    REQUIRE(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(client.get(), 0);
    }));
    Hello hello{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control;
    iovec part{&hello, sizeof hello};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    REQUIRE(::recvmsg(client.get(), &message, 0) == sizeof hello);
    int number = -1;
    std::memcpy(&number, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof number);
    const Descriptor memory(number);
    const auto blocks = [&] {
        struct stat status{};
        ::fstat(memory.get(), &status);
        return status.st_blocks;
    };
    CHECK(blocks() == 2 * 8);  // the header page, and the ring's
    REQUIRE(::send(client.get(), "x", 1, MSG_NOSIGNAL) == 1);
    CHECK_FALSE(listener.try_accept());
    REQUIRE(eventually([&] { return hung_up(client.get()); }));
    CHECK(blocks() == 8);
}

TEST_CASE("accept can be interrupted while it reserves memory, and the client goes on waiting") {
    const Folder folder;
    ListenOptions options = many();
    options.capacities = {256u << 20};
    Listener listener(folder.file(), options);
    const Descriptor first = greet(folder.file());
    REQUIRE(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(first.get(), 0);  // what the listener has in store
    }));
    const Descriptor second = greet(folder.file());
    try {
        listener.accept(kNever, Interrupt{[](void*) { return count_segment_mappings() == 2; }, nullptr});
        FAIL("it was interrupted");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::interrupted);
    }
    CHECK(count_segment_mappings() == 1);
    CHECK_FALSE(readable(second.get(), 0));
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return readable(second.get(), 0);
    }));
}

TEST_CASE("without a single descriptor to be had a listener says so when somebody comes, and not before") {
    const Folder folder;
    Child child([&] {
        Listener listener(folder.file(), many());
        const Descriptor client = make_stream_socket();
        TACHYON_CHILD_CHECK(!listener.try_accept());
        rlimit before{};
        ::getrlimit(RLIMIT_NOFILE, &before);
        const rlimit none{0, before.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &none);
        TACHYON_CHILD_CHECK(!listener.try_accept());
        try {
            (void)listener.accept(in_ms(10));
        } catch (const SetupError& error) {
            TACHYON_CHILD_CHECK(error.failure() == SetupFailure::timed_out);
        }
        const sockaddr_un address = make_address(folder.file());
        const auto* const where = reinterpret_cast<const sockaddr*>(&address);
        TACHYON_CHILD_CHECK(::connect(client.get(), where, sizeof address) == 0);
        for (const bool wait : {false, true}) {
            int error_number = 0;
            try {
                if (wait) {
                    (void)listener.accept(kNever);
                } else {
                    (void)listener.try_accept();
                }
            } catch (const SetupError& error) {
                error_number = error.error_number();
            }
            TACHYON_CHILD_CHECK(error_number == EMFILE);
        }
        return 0;
    });
    CHECK(child.wait() == 0);
}

TEST_CASE("a forked child does not listen, and leaves its parent's socket file alone") {
    const Folder folder;
    std::optional<Listener> listener;
    listener.emplace(folder.file(), many());
    Child child([&] {
        TACHYON_CHILD_CHECK(listener->forked());
        bool refused = false;
        try {
            (void)listener->try_accept();
        } catch (const SetupError&) {
            refused = true;
        }
        TACHYON_CHILD_CHECK(refused);
        listener.reset();
        TACHYON_CHILD_CHECK(exists(folder.file()));
        return 0;
    });
    CHECK(child.wait() == 0);
    CHECK_FALSE(listener->forked());
    Connecting connecting(folder.file());
    listener->accept(in_ms(30'000));
    connecting.join();

    // A child that lives on does not keep the path answering.
    Shared<std::atomic<bool>> alive;
    Child survivor([&] {
        *alive = true;
        ::pause();
        return 0;
    });
    REQUIRE(eventually([&] { return alive->load(); }));
    const std::string other = folder.file("kept");
    REQUIRE(::link(folder.file().c_str(), other.c_str()) == 0);
    listener.reset();
    const Descriptor probe = make_stream_socket();
    const sockaddr_un kept = make_address(other);
    CHECK(::connect(probe.get(), reinterpret_cast<const sockaddr*>(&kept), sizeof kept) != 0);
    CHECK(errno == ECONNREFUSED);
}

TEST_CASE("a forked child that lives on keeps no client that its parent drops, and no listener awake") {
    const Folder folder;
    Listener listener(folder.file(), many());
    Descriptor silent = make_stream_socket();
    Descriptor babbling = make_stream_socket();
    const sockaddr_un address = make_address(folder.file());
    for (const int each : {silent.get(), babbling.get()}) {
        REQUIRE(::connect(each, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    }
    CHECK_FALSE(listener.try_accept());
    Shared<std::atomic<bool>> alive;
    Child survivor([&] {
        silent.reset();
        babbling.reset();
        *alive = true;
        ::pause();
        return 0;
    });
    REQUIRE(eventually([&] { return alive->load(); }));
    silent.reset();
    const std::string rubbish(100, 'x');
    REQUIRE(::send(babbling.get(), rubbish.data(), rubbish.size(), MSG_NOSIGNAL) == 100);
    CHECK(eventually([&] {
        CHECK_FALSE(listener.try_accept());
        return !readable(listener.descriptor(), 0);
    }));
    pollfd entry{babbling.get(), POLLRDHUP, 0};
    CHECK(::poll(&entry, 1, 30'000) == 1);
}

#endif
