#include "tachyon/link/socket_file.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cstddef>

#include "catch.hpp"
#include "support.hpp"
#include "tachyon/link/handshake.hpp"

using namespace tachyon;
using namespace tachyon::test;

namespace {

const Interrupt kPatient{};

Descriptor connected_to(const std::string& path) {
    const sockaddr_un address = make_address(path);
    Descriptor socket = make_stream_socket();
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) socket.reset();
    return socket;
}

// A socket file whose listener has ended without cleaning up, of a stream or another type.
void leave_stale(const std::string& path, int type = SOCK_STREAM) {
    const sockaddr_un address = make_address(path);
    const Descriptor socket(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    if (type == SOCK_STREAM) REQUIRE(::listen(socket.get(), 1) == 0);
}

struct Refusal {
    int error_number = 0;
    std::string what;
};

Refusal refusal(const std::string& path) {
    const Held before;
    Refusal result;
    try {
        const SocketFile file(path, 0600, kPatient);
        FAIL("nothing refused " << path);
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::handshake);
        result = {error.error_number(), error.what()};
    }
    CHECK(Held{} == before);
    return result;
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

struct stat status_of(const std::string& path) {
    struct stat status{};
    REQUIRE(::lstat(path.c_str(), &status) == 0);
    return status;
}

}  // namespace

TEST_CASE("a socket file accepts connections, and is gone afterwards") {
    const Folder folder;
    const Held before;
    {
        const SocketFile file(folder.file(), 0600, kPatient);
        CHECK(S_ISSOCK(status_of(folder.file()).st_mode));
        CHECK(connected_to(folder.file()));
    }
    CHECK(folder.entries().empty());
    CHECK(Held{} == before);
}

TEST_CASE("a socket file has exactly the mode asked for, whatever the umask") {
    const Folder folder;
    for (const mode_t mask : {0000u, 0022u, 0077u, 0177u}) {
        for (const mode_t mode : {0600u, 0660u, 0666u}) {
            const mode_t before = ::umask(mask);
            {
                const SocketFile file(folder.file(), mode, kPatient);
                CHECK((status_of(folder.file()).st_mode & 0777) == mode);
            }
            ::umask(before);
        }
    }
}

#if !TACHYON_TEST_TSAN
TEST_CASE("a socket file gets its mode with no name's help: whoever replaces it changes nobody else's mode") {
    const Folder folder;
    Child child([&] {
        // chmod and its like by path do nothing in this process; all of them are still there for what is open.
        constexpr auto kNumber = static_cast<std::uint32_t>(offsetof(seccomp_data, nr));
        std::array<sock_filter, 7> code{{
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
#ifdef SYS_chmod
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_chmod, 3, 0),
#else
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fchmodat, 3, 0),
#endif
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fchmodat, 2, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 452, 1, 0),  // fchmodat2
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        }};
        sock_fprog program{code.size(), code.data()};
        TACHYON_CHILD_CHECK(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
        TACHYON_CHILD_CHECK(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
        ::umask(0077);
        TACHYON_CHILD_CHECK(::chmod(folder.path().c_str(), 0700) != 0);
        const SocketFile file(folder.file(), 0666, kPatient);
        TACHYON_CHILD_CHECK((status_of(folder.file()).st_mode & 0777) == 0666);
        TACHYON_CHILD_CHECK(::umask(0) == 0077);
        TACHYON_CHILD_CHECK(::waitpid(-1, nullptr, __WALL) < 0 && errno == ECHILD);
        return 0;
    });
    CHECK(child.wait() == 0);
}
#endif

TEST_CASE("a live listener is refused and goes on listening") {
    const Folder folder;
    const SocketFile file(folder.file(), 0600, kPatient);
    const ino_t inode = status_of(folder.file()).st_ino;
    const Refusal why = refusal(folder.file());
    CHECK(why.error_number == EADDRINUSE);
    CHECK(contains(why.what, "another process listens"));
    CHECK(status_of(folder.file()).st_ino == inode);
    CHECK(connected_to(folder.file()));
}

TEST_CASE("a live listener whose queue is full is refused too") {
    const Folder folder;
    const sockaddr_un address = make_address(folder.file());
    const Descriptor busy(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(busy.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(busy.get(), 0) == 0);
    std::vector<Descriptor> clients;
    for (int i = 0; i < 10; ++i) {
        clients.push_back(connected_to(folder.file()));
        if (!clients.back()) break;
    }
    REQUIRE_FALSE(clients.back());
    CHECK(contains(refusal(folder.file()).what, "another process listens"));
    CHECK(exists(folder.file()));
}

TEST_CASE("a stale socket is replaced") {
    const Folder folder;
    leave_stale(folder.file());
    {
        const SocketFile file(folder.file(), 0600, kPatient);
        CHECK(connected_to(folder.file()));
    }
    CHECK_FALSE(exists(folder.file()));
}

TEST_CASE("what is not a socket is left alone") {
    const Folder folder;
    const std::string path = folder.file();
    SECTION("a regular file") {
        const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        REQUIRE(::write(file.get(), "mine", 4) == 4);
    }
    SECTION("an empty file") { const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600)); }
    SECTION("a folder") { REQUIRE(::mkdir(path.c_str(), 0700) == 0); }
    SECTION("a FIFO") { REQUIRE(::mkfifo(path.c_str(), 0600) == 0); }
    SECTION("a symlink to nothing") { REQUIRE(::symlink("nowhere", path.c_str()) == 0); }
    SECTION("a symlink to a stale socket") {
        leave_stale(folder.file("other"));
        REQUIRE(::symlink("other", path.c_str()) == 0);
    }
    const struct stat before = status_of(path);
    const std::size_t entries = folder.entries().size();
    const Refusal why = refusal(path);
    CHECK(why.error_number == EADDRINUSE);
    CHECK(contains(why.what, "not a socket"));
    const struct stat after = status_of(path);
    CHECK(after.st_ino == before.st_ino);
    CHECK(after.st_mode == before.st_mode);
    CHECK(after.st_size == before.st_size);
    CHECK(folder.entries().size() == entries);
}

TEST_CASE("a socket of another type cannot be proven stale and is left alone") {
    const Folder folder;
    leave_stale(folder.file(), SOCK_DGRAM);
    const Descriptor alive(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    const sockaddr_un address = make_address(folder.file("alive"));
    REQUIRE(::bind(alive.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(alive.get(), 1) == 0);
    CHECK(contains(refusal(folder.file("alive")).what, "cannot be proven stale"));
    CHECK(exists(folder.file("alive")));
    // Of a dead datagram socket a stream connect says either; whatever it proves, nothing but a socket may go.
    try {
        const SocketFile file(folder.file(), 0600, kPatient);
    } catch (const SetupError&) {
        CHECK(exists(folder.file()));
    }
}

TEST_CASE("whatever has taken the path meanwhile survives the end of the socket file") {
    const Folder folder;
    {
        const SocketFile file(folder.file(), 0600, kPatient);
        REQUIRE(::rename(folder.file().c_str(), folder.file("moved").c_str()) == 0);
        leave_stale(folder.file());
    }
    CHECK(exists(folder.file()));
}

TEST_CASE("a socket file goes from the folder it was made in, wherever its path leads by then") {
    const Folder made, other, links;
    const std::string link = links.file("link");
    REQUIRE(::symlink(made.path().c_str(), link.c_str()) == 0);
    {
        const SocketFile file(link + "/bus", 0600, kPatient);
        REQUIRE(::link(made.file().c_str(), other.file().c_str()) == 0);  // the same file, as far as one can tell
        REQUIRE(::unlink(link.c_str()) == 0);
        REQUIRE(::symlink(other.path().c_str(), link.c_str()) == 0);
    }
    CHECK_FALSE(exists(made.file()));
    CHECK(exists(other.file()));
}

TEST_CASE("a path that has been removed meanwhile does no harm") {
    const Folder folder;
    {
        const SocketFile file(folder.file(), 0600, kPatient);
        REQUIRE(::unlink(folder.file().c_str()) == 0);
    }
    CHECK(folder.entries().empty());
}

TEST_CASE("a path that no UNIX address holds is refused before anything is made") {
    CHECK(refusal("").error_number == EINVAL);
    CHECK(refusal(std::string("/tmp/a\0b", 8)).error_number == EINVAL);
    const Folder folder;
    const std::string longest = folder.path() + "/" + std::string(107 - folder.path().size() - 1, 'x');
    REQUIRE(longest.size() == 107);
    CHECK(refusal(longest + "x").error_number == ENAMETOOLONG);
    CHECK(folder.entries().empty());
    const SocketFile file(longest, 0600, kPatient);
    CHECK(connected_to(longest));
}

TEST_CASE("a folder that does not exist is named") {
    const Folder folder;
    const Refusal why = refusal(folder.file("none") + "/bus");
    CHECK(why.error_number == ENOENT);
    CHECK(contains(why.what, folder.file("none")));
}

TEST_CASE("a path without a folder stands in the current one") {
    const Folder folder;
    char before[4096];
    REQUIRE(::getcwd(before, sizeof before) != nullptr);
    REQUIRE(::chdir(folder.path().c_str()) == 0);
    {
        const SocketFile file("here", 0600, kPatient);
        CHECK(exists(folder.file("here")));
    }
    CHECK_FALSE(exists(folder.file("here")));
    REQUIRE(::chdir(before) == 0);
}

TEST_CASE("a folder that somebody keeps locked is waited for, but not against an interrupt, nor for ever") {
    const Folder folder;
    const Held before;
    const Descriptor lock(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(::flock(lock.get(), LOCK_EX) == 0);
    int asked = 0;
    Interrupt interrupt{[](void* context) { return ++*static_cast<int*>(context) == 5; }, &asked};
    try {
        const SocketFile file(folder.file(), 0600, interrupt);
        FAIL("not interrupted");
    } catch (const SetupError& error) {
        CHECK(error.failure() == SetupFailure::interrupted);
    }
    CHECK(asked == 5);
    CHECK(refusal(folder.file()).error_number == EBUSY);
    CHECK(folder.entries().empty());
    REQUIRE(::flock(lock.get(), LOCK_UN) == 0);
    { const SocketFile file(folder.file(), 0600, kPatient); }
    CHECK(Held{}.descriptors == before.descriptors + 1);  // the lock's
}

TEST_CASE("of many who want one stale path exactly one gets it at a time") {
    const Folder folder;
    const std::uint64_t until = in_ms(long_form() ? 20'000 : 500);
    std::atomic<int> inside{0}, most{0};
    std::atomic<std::uint64_t> got{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            while (now_ns() < until) {
                try {
                    const SocketFile file(folder.file(), 0600, kPatient);
                    const int now = ++inside;
                    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {}
                    ++got;
                    --inside;
                } catch (const SetupError&) {}
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(most == 1);
    CHECK(got > 10);
    CHECK(folder.entries().empty());
}
