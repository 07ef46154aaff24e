// A call and its answer between two threads, and an error by its type. Prints what came back.
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "tachyon/rpc.hpp"

namespace {

constexpr std::uint64_t kPatience = 20'000'000'000;  // ns

tachyon::RpcRings connect(const std::string& path, std::uint64_t deadline) {
    tachyon::ConnectOptions options;
    options.deadline = deadline;
    return tachyon::connect_rpc(path, options);
}

bool echo_once(tachyon::RpcRings& rings, std::uint64_t deadline) {
    tachyon::Callee callee(rings);
    tachyon::Frame call{};
    while (callee.try_serve(call) != tachyon::Status::ok) {
        if (tachyon::now_ns() > deadline) return false;
        static_cast<void>(rings.calls->wait_readable(deadline));
    }
    return callee.try_reply(call.correlation_id, call.payload, call.size, call.type_id) == tachyon::Status::ok &&
           rings.calls->release(call) == tachyon::Status::ok;
}

bool ask(tachyon::RpcRings& rings, std::string_view text, std::uint64_t deadline) {
    tachyon::Caller caller(rings);
    std::uint64_t id = 0;
    if (caller.try_call(text.data(), text.size(), 7, id) != tachyon::Status::ok) return false;
    tachyon::Frame reply{};
    while (caller.try_wait(id, reply) != tachyon::Status::ok) {
        if (tachyon::now_ns() > deadline) return false;
        static_cast<void>(rings.replies->wait_readable(deadline));
    }
    std::printf("type %u: %.*s\n", reply.type_id, static_cast<int>(reply.size),
                reinterpret_cast<const char*>(reply.payload));
    caller.release(reply);
    return true;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 2) return 2;
    const std::string path = arguments[1];
    try {
        connect(path, 0);
        return 1;
    } catch (const tachyon::SetupError& error) {
        if (error.failure() != tachyon::SetupFailure::handshake) return 1;
    }
    const std::uint64_t deadline = tachyon::now_ns() + kPatience;
    bool answered = false;
    std::thread caller([&] {
        auto rings = connect(path, deadline);
        answered = ask(rings, "hello from C++", deadline);
    });
    tachyon::ListenOptions options;
    options.capacities = {1U << 16U, 1U << 16U};
    options.deadline = deadline;
    auto rings = tachyon::listen_rpc(path, options);
    const bool served = echo_once(rings, deadline);
    caller.join();
    return served && answered ? 0 : 1;
}
