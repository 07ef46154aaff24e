// Two processes and one message. Prints what arrived.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "tachyon/bus.hpp"

static_assert(__cplusplus > 201703L, "tachyon::core asks for C++20");

namespace {

constexpr std::uint64_t kPatience = 20'000'000'000;  // ns

int produce(const std::string& path) {
    tachyon::ConnectOptions options;
    options.deadline = tachyon::now_ns() + kPatience;
    const auto bus = tachyon::Bus::connect(path, options);
    constexpr std::string_view text = "hello from C++";
    return bus->try_send(text.data(), text.size(), 7) == tachyon::Status::ok ? 0 : 1;
}

int consume(const std::string& path) {
    const std::uint64_t deadline = tachyon::now_ns() + kPatience;
    tachyon::ListenOptions options;
    options.capacities = {1U << 16U};
    options.deadline = deadline;
    const auto bus = tachyon::Bus::listen(path, options);
    tachyon::Frame frame{};
    tachyon::Status status = tachyon::Status::empty;
    while ((status = bus->try_peek(frame)) == tachyon::Status::empty && tachyon::now_ns() < deadline) {
        static_cast<void>(bus->wait_readable(deadline));
    }
    if (status != tachyon::Status::ok) return 1;
    std::printf("type %u: %.*s\n", frame.type_id, static_cast<int>(frame.size),
                reinterpret_cast<const char*>(frame.payload));
    return bus->release(frame) == tachyon::Status::ok ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 2;
    try {
        const pid_t child = ::fork();
        if (child == 0) return produce(arguments[1]);
        const int code = consume(arguments[1]);
        int status = 0;
        return ::waitpid(child, &status, 0) == child && status == 0 ? code : 1;
    } catch (const std::exception& error) {  // set-up says what is wrong, and where
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
