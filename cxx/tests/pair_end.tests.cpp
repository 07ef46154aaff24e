// Two ends that one process makes and others use.
#include "tachyon/link/pair_end.hpp"

#include <sys/resource.h>

#include "catch.hpp"
#include "support.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

[[maybe_unused]] std::unique_ptr<Bus> open(PairEnd& end) {
    auto taken = end.take();
    if (!taken) return nullptr;
    return Bus::adopt(taken->meeting->meet(in_ms(30'000)), taken->producer);
}

int error_of(PairEnd& end) {
    try {
        (void)end.take();
    } catch (const SetupError& error) {
        return error.error_number();
    }
    return 0;
}

}  // namespace

TEST_CASE("an end is one descriptor until it is taken, and ends leave nothing behind") {
    const Held before;
    {
        auto [one, other] = PairEnd::make(listen_options());
        CHECK(count_descriptors() == before.descriptors + 2);
        CHECK(count_segment_mappings() == before.mappings);
        auto taken = one.take();
        REQUIRE(taken);
        CHECK(one.descriptor() == -1);
        CHECK(error_of(one) == EBADF);
    }
    CHECK(Held{} == before);
}

TEST_CASE("both ends know how large a message may be, and what is no limit makes none") {
    ListenOptions options = listen_options();
    options.max_large = 1 << 16;
    auto [one, other] = PairEnd::make(options);
    auto first = one.take(), second = other.take();
    REQUIRE((first && second));
    std::optional<Established> here, there;
    CHECK(eventually([&] {
        if (!here) here = first->meeting->advance();
        if (!there) there = second->meeting->advance();
        return here && there;
    }));
    CHECK(here->connection.max_large() == 1 << 16);
    CHECK(there->connection.max_large() == 1 << 16);
    const Held before;
    options.max_large = 5000;
    CHECK_THROWS_AS(PairEnd::make(options), SetupError);
    CHECK(Held{} == before);
}

TEST_CASE("of all copies of an end one is taken") {
    auto [one, other] = PairEnd::make(listen_options());
    PairEnd copy(Descriptor(::dup(one.descriptor())));
    CHECK(::fcntl(copy.descriptor(), F_GETFD) == FD_CLOEXEC);
    CHECK(one.take());
    CHECK_FALSE(copy.take());
    CHECK_FALSE(copy.take());
}

TEST_CASE("an end that is dropped untaken is a hang-up to the other one") {
    auto [one, other] = PairEnd::make(listen_options());
    const bool first = GENERATE(true, false);
    auto taken = (first ? one : other).take();
    REQUIRE(taken);
    CHECK_FALSE(taken->meeting->advance());
    (first ? other : one).close();
    CHECK_THROWS_AS(taken->meeting->advance(), SetupError);
}

TEST_CASE("an end can be taken once there are descriptors again") {
    auto [one, other] = PairEnd::make(listen_options());
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    const int lowest = ::dup(0);
    ::close(lowest);
    rlimit low{static_cast<rlim_t>(lowest), limit.rlim_max};
    for (int more = 0; more < 8; ++more) {  // so many are free
        low.rlim_cur = static_cast<rlim_t>(lowest + more);
        ::setrlimit(RLIMIT_NOFILE, &low);
        int error = 0;
        try {
            if (one.take()) more = 100;
        } catch (const SetupError& failure) {
            error = failure.error_number();
        }
        ::setrlimit(RLIMIT_NOFILE, &limit);
        if (more < 8) CHECK(error == EMFILE);
    }
    CHECK(one.descriptor() == -1);
}

TEST_CASE("what is no end is refused") {
    int numbers[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, numbers) == 0);
    const Descriptor far(numbers[1]);
    PairEnd end{Descriptor(numbers[0])};
    CHECK(error_of(end) == EPROTO);  // nothing there
    const std::string garbage(200, 'x');
    REQUIRE(::send(far.get(), garbage.data(), garbage.size(), 0) == 200);
    CHECK(error_of(end) == EPROTO);
    PairEnd file{Descriptor(::open("/dev/null", O_RDWR))};
    CHECK(error_of(file) == EPROTO);
}

#if !TACHYON_TEST_TSAN

TEST_CASE("two children that were never told of each other meet, with the roles that were given") {
    auto [one, other] = PairEnd::make(listen_options(), Side::listener);
    Child producer([&, &first = one, &second = other] {
        second.close();
        const auto bus = open(first);
        TACHYON_CHILD_CHECK(bus != nullptr);
        Frame frame;
        TACHYON_CHILD_CHECK(bus->try_peek(frame) == Status::wrong_side);
        TACHYON_CHILD_CHECK(send(*bus, "abc", 3, 7, 0, in_ms(30'000)) == Status::ok);
        return bus->wait_read(in_ms(30'000)) == Status::ok ? 0 : 1;
    });
    Child consumer([&, &first = one, &second = other] {
        first.close();
        const auto bus = open(second);
        TACHYON_CHILD_CHECK(bus != nullptr);
        TACHYON_CHILD_CHECK(bus->peer_pid() == producer.pid());
        TACHYON_CHILD_CHECK(bus->try_send("x", 1, 0) == Status::wrong_side);
        Frame frame;
        TACHYON_CHILD_CHECK(receive(*bus, frame, in_ms(30'000)) == Status::ok);
        bus->let_go(frame);
        return 0;
    });
    CHECK(consumer.wait() == 0);
    CHECK(producer.wait() == 0);
    CHECK_FALSE(one.take());
    CHECK_FALSE(other.take());
}

TEST_CASE("many processes try to take one end, and one gets it") {
    for (int round = 0; round < 20; ++round) {
        auto [one, other] = PairEnd::make(listen_options());
        const Shared<std::atomic<int>> go, took;
        std::vector<std::unique_ptr<Child>> children;
        for (int i = 0; i < 6; ++i) {
            children.push_back(std::make_unique<Child>([&, &end = one] {
                while (*go == 0) {}
                if (end.take()) ++*took;
                return 0;
            }));
        }
        *go = 1;
        for (auto& child : children) CHECK(child->wait() == 0);
        CHECK(*took == 1);
    }
}

TEST_CASE("once the maker has died, forked copies keep nobody waiting for ever") {
    const Shared<std::atomic<pid_t>> stray;
    const Shared<std::atomic<int>> error;
    Child maker([&] {
        auto ends = PairEnd::make(listen_options());
        if (::fork() == 0) {
            ::alarm(60);
            ends.second.close();
            auto taken = ends.first.take();
            try {
                (void)taken->meeting->meet(in_ms(30'000));
            } catch (const SetupError& failure) {
                *error = failure.error_number();
            }
            ::_exit(0);
        }
        const pid_t pid = ::fork();
        if (pid == 0) {
            ::alarm(60);
            ::pause();
            ::_exit(0);
        }
        *stray = pid;
        ::pause();
        return 0;
    });
    REQUIRE(eventually([&] { return *stray != 0; }));
    maker.kill();
    CHECK(eventually([&] { return *error != 0; }));
    CHECK(*error == ECONNRESET);
    ::kill(*stray, SIGKILL);
}

#endif
