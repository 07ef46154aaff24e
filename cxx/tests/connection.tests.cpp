// How the end of a peer is noticed, by whatever the system still lets us ask.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <array>
#include <cstddef>
#include <optional>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/link/socket_file.hpp"
#include "tachyon/listener.hpp"
#include "tachyon/wait_set.hpp"

using namespace tachyon;
using namespace tachyon::test;

#if TACHYON_TEST_TSAN

int main() {
    std::puts("left out: these tests kill processes that they forked, and ThreadSanitizer supports neither");
    return 77;
}

#else

namespace {

constexpr std::uint64_t kCapacity = 4096;

// The limit on descriptors for as long as it lives, as a process has it that gives up privileges once it is set up.
class Limit {
  public:
    explicit Limit(rlim_t most) {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        rlimit now = before_;
        now.rlim_cur = most;
        ::setrlimit(RLIMIT_NOFILE, &now);
    }
    Limit(const Limit&) = delete;
    Limit& operator=(const Limit&) = delete;
    ~Limit() { ::setrlimit(RLIMIT_NOFILE, &before_); }

  private:
    rlimit before_{};
};

// As fork, but without the handlers that let go of sockets: what another runtime's threads, or a bare clone, may do.
pid_t bare_fork() { return static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); }

// A process that outlives its parent, with everything the parent had open, until somebody says so.
void leave_heir(std::atomic<int>& heirs) {
    if (bare_fork() != 0) return;
    ::prctl(PR_SET_PDEATHSIG, 0);
    ++heirs;
    for (const std::uint64_t until = in_ms(60'000); heirs.load() > 0 && now_ns() < until;) sleep_us(5000);
    ::_exit(0);
}

// From now on this process gets no pidfd.
bool forbid_pidfds() {
    constexpr auto kNumber = static_cast<std::uint32_t>(offsetof(seccomp_data, nr));
    constexpr auto kOption = static_cast<std::uint32_t>(offsetof(seccomp_data, args[2]));
    std::array<sock_filter, 7> code{{
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kOption),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 77, 0, 1),  // SO_PEERPIDFD
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    }};
    sock_fprog program{code.size(), code.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// This process is `side`, a child the other one; `during` is what the child does once it is connected.
template <class During>
struct Met {
    Folder folder;
    Shared<std::atomic<bool>> met;
    Child child;
    Established established;

    Met(Side side, During during)
        : child([&, side] {
              const Established peer = side == Side::listener ? connect(folder.file(), connect_options())
                                                              : listen(folder.file(), listen_options(kCapacity));
              during(peer);
              *met = true;
              ::pause();
              return 0;
          }),
          established(side == Side::listener ? listen(folder.file(), listen_options(kCapacity))
                                             : connect(folder.file(), connect_options())) {
        REQUIRE(eventually([&] { return met->load(); }));
    }
};

}  // namespace

TEST_CASE("a death is noticed whatever has become of the limit on descriptors") {
    for (const Side side : {Side::listener, Side::connector}) {
        for (const rlim_t most : {0, 1, 2}) {
            for (const bool knocks : {false, true}) {
                INFO(static_cast<int>(side) << " with " << most << (knocks ? ", bytes left to read" : ""));
                Met peer(side, [&](const Established& mine) {
                    if (knocks) mine.connection.knock();
                });
                const Connection& connection = peer.established.connection;
                bool before = true, after = false;
                {
                    const Limit limit(most);
                    before = connection.hung_up();
                    peer.child.kill();
                    after = eventually([&] { return connection.hung_up(); });
                }
                CHECK_FALSE(before);
                CHECK(after);
            }
        }
    }
}

TEST_CASE("a close is noticed whatever has become of the limit on descriptors") {
    const Folder folder;
    Child child([&] {
        Established peer = connect(folder.file(), connect_options());
        char byte = 0;
        while (::recv(peer.connection.socket(), &byte, 1, 0) < 0) sleep_us(1000);
        peer.connection.knock();
        peer.connection.shut_down();
        ::pause();
        return 0;
    });
    const Established mine = listen(folder.file(), listen_options(kCapacity));
    const Limit limit(0);
    CHECK_FALSE(mine.connection.hung_up());
    mine.connection.knock();
    CHECK(eventually([&] { return mine.connection.hung_up(); }));
}

TEST_CASE("an heir of the sockets hides no death, whatever has become of the limit on descriptors") {
    for (const rlim_t most : {0, 1, 1000}) {
        const Shared<std::atomic<int>> heirs;
        Met peer(Side::listener, [&](const Established&) { leave_heir(*heirs); });
        REQUIRE(eventually([&] { return heirs->load() == 1; }));
        const Connection& connection = peer.established.connection;
        bool before = true, zombie = false, reaped = false;
        {
            const Limit limit(most);
            before = connection.hung_up();
            peer.child.kill();
            zombie = eventually([&] { return connection.hung_up(); });
            peer.child.wait();
            reaped = connection.hung_up();
        }
        *heirs = 0;
        CHECK_FALSE(before);
        CHECK(zombie);
        CHECK(reaped);
    }
}

TEST_CASE("a bus whose limit on descriptors has gone down ends with its peer in both directions") {
    for (const bool sends : {false, true}) {
        Met peer(Side::connector, [](const Established&) {});
        const std::unique_ptr<Bus> bus = Bus::adopt(std::move(peer.established));
        Status status = Status::ok;
        {
            const Limit limit(1);
            peer.child.kill();
            Frame frame{};
            if (sends) {
                (void)eventually([&] { return (status = bus->try_send("x", 1, 1, 0)) == Status::peer_dead; });
            } else {
                status = receive(*bus, frame, in_ms(30'000));
            }
        }
        CHECK(status == Status::peer_dead);
    }
}

// ---- in the middle of the handshake ----------------------------------------------------------------------------------------

namespace {

// Accepts one client and goes as far with it as it should; then an heir keeps the socket, and it is killed.
struct Halfway {
    const Folder& folder;
    const Shared<std::atomic<int>> heirs;
    Child child;

    Halfway(const Folder& place, bool offers)
        : folder(place), child([&, offers] {
              const sockaddr_un address = make_address(folder.file());
              const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
              TACHYON_CHILD_CHECK(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
                                  0);
              TACHYON_CHILD_CHECK(::listen(socket.get(), 8) == 0);
              const Descriptor client(::accept(socket.get(), nullptr, nullptr));
              Hello hello{};
              TACHYON_CHILD_CHECK(::recv(client.get(), &hello, sizeof hello, MSG_WAITALL) == sizeof hello);
              if (offers) {
                  const RingSegment segment = RingSegment::create(kCapacity);
                  hello.segments = 1;
                  hello.offers[0] = {kHeaderBytes + kCapacity, kCapacity, 2, 0};  // to read and write
                  iovec part{&hello, sizeof hello};
                  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
                  msghdr message{};
                  message.msg_iov = &part;
                  message.msg_iovlen = 1;
                  message.msg_control = control;
                  message.msg_controllen = sizeof control;
                  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
                  rights->cmsg_level = SOL_SOCKET;
                  rights->cmsg_type = SCM_RIGHTS;
                  rights->cmsg_len = CMSG_LEN(sizeof(int));
                  const int number = segment.descriptor();
                  std::memcpy(CMSG_DATA(rights), &number, sizeof number);
                  TACHYON_CHILD_CHECK(::sendmsg(client.get(), &message, MSG_NOSIGNAL) == sizeof hello);
                  char ready = 0;
                  TACHYON_CHILD_CHECK(::recv(client.get(), &ready, 1, 0) == 1);
              }
              ::unlink(folder.file().c_str());
              leave_heir(*heirs);
              ::pause();
              return 0;
          }) {
        REQUIRE(eventually([&] { return exists(folder.file()); }));
    }
    ~Halfway() { *heirs = 0; }
    void die() {
        REQUIRE(eventually([&] { return *heirs == 1; }));
        child.kill();
    }
};

}  // namespace

TEST_CASE("a connector does not wait for a listener that died in the handshake, whoever holds its socket") {
    for (const bool offers : {false, true}) {
        for (const std::uint64_t deadline : {std::uint64_t{0}, in_ms(600'000), kNever}) {
            INFO(offers << ", until " << deadline);
            const Folder folder;
            Halfway listener(folder, offers);
            Shared<std::atomic<int>> outcome;
            Child connector([&] {
                ConnectOptions options;
                options.deadline = deadline;
                try {
                    const std::uint64_t before = now_ns();
                    const Established established = connect(folder.file(), options);
                    *outcome = deadline != 0 && now_ns() - before < 60'000 * kMillisecond ? 1 : 2;
                } catch (const SetupError& error) {
                    *outcome = deadline == 0 && error.error_number() == ECONNRESET ? 1 : 3;
                }
                return 0;
            });
            listener.die();
            // Who has time left turns to the next listener.
            std::optional<Established> next;
            if (deadline != 0) {
                ListenOptions options = listen_options(kCapacity, 40'000);
                REQUIRE_NOTHROW(next.emplace(listen(folder.file(), options)));
            }
            REQUIRE(connector.wait() == 0);
            CHECK(*outcome == 1);
        }
    }
}

TEST_CASE("a forked child keeps no client of its parent's, wherever in the handshake") {
    const Folder folder;
    const Shared<std::atomic<int>> forked;
    Child parent([&] {
        ListenOptions options;
        options.capacities = {kCapacity};
        Listener listener(folder.file(), options);
        while (*forked == 0) {
            (void)listener.try_accept();
            if (!exists(folder.file("accepted"))) continue;
            const std::size_t before = count_descriptors();
            Child child([&] {
                TACHYON_CHILD_CHECK(count_descriptors() <= before - 3);  // the file, the client, its pidfd
                return 0;
            });
            *forked = child.wait() == 0 ? 1 : 2;
        }
        return 0;
    });
    const Descriptor client = make_stream_socket();
    const sockaddr_un address = make_address(folder.file());
    REQUIRE(eventually(
        [&] { return ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0; }));
    sleep_us(100'000);
    Descriptor(::open(folder.file("accepted").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)).reset();
    REQUIRE(eventually([&] { return *forked != 0; }));
    CHECK(*forked == 1);
}

// ---- without a pidfd -----------------------------------------------------------------------------------------------------

TEST_CASE("where no pidfd is to be had an heir of the sockets hides no death either") {
    for (const rlim_t most : {0, 1000}) {
        const Folder folder;
        const Shared<std::atomic<int>> heirs;
        const Shared<std::atomic<int>> victim;
        Child survivor([&] {
            Child child([&] {
                const Established peer = connect(folder.file(), connect_options());
                leave_heir(*heirs);
                while (*heirs == 0) sleep_us(1000);
                *victim = ::getpid();
                ::pause();
                return 0;
            });
            TACHYON_CHILD_CHECK(forbid_pidfds());
            const std::unique_ptr<Bus> bus = Bus::adopt(listen(folder.file(), listen_options(kCapacity)));
            TACHYON_CHILD_CHECK(bus->connection()->process() == -1);
            TACHYON_CHILD_CHECK(eventually([&] { return *victim != 0; }));
            const Limit limit(most);
            TACHYON_CHILD_CHECK(!bus->connection()->hung_up());
            // Stopped is not dead.
            child.signal(SIGSTOP);
            sleep_us(20'000);
            TACHYON_CHILD_CHECK(!bus->connection()->hung_up());
            child.kill();
            Frame frame{};
            TACHYON_CHILD_CHECK(receive(*bus, frame, in_ms(20'000)) == Status::peer_dead);  // a zombie
            child.wait();
            TACHYON_CHILD_CHECK(bus->connection()->hung_up());
            return 0;
        });
        CHECK(survivor.wait() == 0);
        *heirs = 0;
    }
}

TEST_CASE("where no pidfd is to be had a wait set notices the death that an heir of the sockets hides") {
    const Folder folder;
    const Shared<std::atomic<int>> heirs;
    Child survivor([&] {
        Child child([&] {
            const Established peer = connect(folder.file(), connect_options());
            leave_heir(*heirs);
            ::pause();
            return 0;
        });
        TACHYON_CHILD_CHECK(forbid_pidfds());
        Established mine = listen(folder.file(), listen_options(kCapacity));
        Bus bus(std::make_shared<Connection>(std::move(mine.connection)), RingSegment(std::move(mine.segments[0])),
                Side::connector);
        WaitSet set;
        set.add(7, bus);
        TACHYON_CHILD_CHECK(eventually([&] { return *heirs == 1; }));
        WaitSet::Token token = 0;
        TACHYON_CHILD_CHECK(set.wait(in_ms(60), token) == Status::empty);
        child.kill();
        TACHYON_CHILD_CHECK(eventually([&] { return set.wait(in_ms(100), token) == Status::ok; }));
        TACHYON_CHILD_CHECK(token == 7);
        return 0;
    });
    CHECK(survivor.wait() == 0);
    *heirs = 0;
}

TEST_CASE("where no pidfd is to be had a process whose first thread has ended still lives") {
    const Folder folder;
    const Shared<std::atomic<bool>> first_thread_gone;
    Child survivor([&] {
        Child child([&] {
            const Established peer = connect(folder.file(), connect_options());
            std::thread([&] {
                const std::string path = "/proc/" + std::to_string(::getpid()) + "/stat";
                std::string text;
                *first_thread_gone = eventually([&] {
                    std::getline(std::ifstream(path), text);
                    return text.find(") Z ") != std::string::npos;
                });
                ::pause();
            }).detach();
            ::syscall(SYS_exit, 0);  // this thread alone
            return 0;
        });
        TACHYON_CHILD_CHECK(forbid_pidfds());
        const Established mine = listen(folder.file(), listen_options(kCapacity));
        TACHYON_CHILD_CHECK(mine.connection.process() == -1);
        TACHYON_CHILD_CHECK(eventually([&] { return first_thread_gone->load(); }));
        TACHYON_CHILD_CHECK(!mine.connection.hung_up());
        child.kill();
        TACHYON_CHILD_CHECK(eventually([&] { return mine.connection.hung_up(); }));
        return 0;
    });
    CHECK(survivor.wait() == 0);
}

#endif
