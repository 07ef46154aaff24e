// What a wait set has to bear: peers that misbehave, signals, a kernel that refuses, forks.
#include <array>
#include <csignal>

#include "line.hpp"

using namespace tachyon;
using namespace tachyon::test;

TEST_CASE("bytes that nobody asked for on the socket do no harm") {
    Line line;
    WaitSet set;
    set.add(1, line.ours());
    for (int n = 0; n < 5000; ++n) line.theirs().connection()->knock();
    WaitSet::Token token = 0;
    for (int n = 0; n < 1000; ++n) REQUIRE(set.wait(now_ns() + 1000, token) == Status::empty);
    // Once they are taken, it sleeps.
    const std::uint64_t parks = set.parks(), until = in_ms(20);
    while (now_ns() < until) REQUIRE(set.wait(until, token) == Status::empty);
    CHECK(set.parks() - parks < 20);
    line.put();
    CHECK(wait_for(set, token) == Status::ok);
    CHECK(token == 1);
}

TEST_CASE("a peer that says it sleeps on its socket, and never reads, keeps nobody waiting") {
    Line line;
    for (int n = 0; n < 5000; ++n) {
        line.pair.header->consumer_parked.store(kParkedOnSocket);
        line.put();
        line.take();
    }
    CHECK(line.theirs().stats().wakes >= 5000);
}

TEST_CASE("a signal ends the wait of a wait set") {
    Line line;
    WaitSet set;
    set.add(1, line.ours());
    struct sigaction action{}, old{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, &old);
    const pthread_t self = ::pthread_self();
    std::atomic<bool> done{false};
    std::thread sender([&] {
        while (!done) {
            ::pthread_kill(self, SIGUSR1);
            sleep_us(3000);
        }
    });
    WaitSet::Token token = 0;
    bool interrupted = false;
    for (const std::uint64_t until = in_ms(30'000); !interrupted && now_ns() < until;) {
        interrupted = set.wait(until, token) == Status::interrupted;
    }
    done = true;
    sender.join();
    ::sigaction(SIGUSR1, &old, nullptr);
    CHECK(interrupted);
}

#if !TACHYON_TEST_TSAN
TEST_CASE("a wait set whose queue the kernel refuses asks each member by itself") {
    WaitSet set;
    int queue = -1;
    for (int number = 0; number < 1024; ++number) {
        std::array<char, 64> target{};
        const std::string link = "/proc/self/fd/" + std::to_string(number);
        if (::readlink(link.c_str(), target.data(), target.size() - 1) <= 0) continue;
        if (std::string(target.data()) == "anon_inode:[eventpoll]") queue = number;
    }
    REQUIRE(queue >= 0);
    Line quiet, other;
    int pipes[2];
    REQUIRE(::pipe2(pipes, O_CLOEXEC | O_NONBLOCK) == 0);
    const Descriptor reading(pipes[0]), writing(pipes[1]);
    set.add(1, quiet.ours());
    set.add(2, other.ours());
    set.add_descriptor(3, reading.get());
    const Descriptor null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    REQUIRE(::dup3(null.get(), queue, O_CLOEXEC) == queue);

    WaitSet::Token token = 0;
    const std::uint64_t begin = now_ns();
    Status status = Status::empty;
    while (status == Status::empty && now_ns() < begin + 100 * kMillisecond) {
        status = set.wait(begin + 100 * kMillisecond, token);
    }
    CHECK(status == Status::empty);
    other.put();
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 2);
    other.take();
    REQUIRE(::write(writing.get(), "x", 1) == 1);
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 3);
    char byte = 0;
    REQUIRE(::read(reading.get(), &byte, 1) == 1);
    quiet.pair.second.reset();
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 1);
}

TEST_CASE("what a forked child does to a wait set does not reach the one of its parent") {
    Line line;
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    const Descriptor out(ends[0]), in(ends[1]);
    WaitSet set;
    set.add(1, line.ours());
    set.add_descriptor(2, out.get());
    Child child([&] {
        WaitSet::Token token = 0;
        TACHYON_CHILD_CHECK(set.wait(in_ms(20), token) == Status::forked);
        TACHYON_CHILD_CHECK(set.poll(token) == Status::forked);
        set.remove(1);
        set.remove(2);
        return 0;
    });
    CHECK(child.wait() == 0);
    REQUIRE(::write(in.get(), "x", 1) == 1);
    WaitSet::Token token = 0;
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 2);
    set.remove(2);
    line.put();
    REQUIRE(wait_for(set, token) == Status::ok);
    CHECK(token == 1);
}
#endif
