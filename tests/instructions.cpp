// Sends and receives in one process, under callgrind: each loop twice, so that what surrounds it cancels out. The counts are
// in the dumps, named after the loop and its length. tests/test_instructions.py reads them.
#include <valgrind/callgrind.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "tachyon/bus.hpp"

namespace {

using namespace tachyon;

template <class Turn>
void count(const char* what, Turn turn) {
    for (const int turns : {1000, 5000}) {
        CALLGRIND_DUMP_STATS_AT("between");
        for (int i = 0; i < turns; ++i) turn();
        const std::string name = std::string(what) + " " + std::to_string(turns);
        CALLGRIND_DUMP_STATS_AT(name.c_str());
    }
}

void need(Status status) {
    if (status != Status::ok) std::abort();
}

}  // namespace

int main(int, char** argv) {
    const std::string path = argv[1];
    std::unique_ptr<Bus> out, in;
    std::thread listener([&] {
        ListenOptions options;
        options.capacities = {1 << 20};
        out = Bus::listen(path, options);
    });
    ConnectOptions options;
    options.deadline = now_ns() + 60'000 * kMillisecond;
    in = Bus::connect(path, options);
    listener.join();

    const char payload[32] = {};
    count("cxx-send", [&] { need(out->try_send(payload, sizeof payload, 1)); });
    count("cxx-receive", [&] {
        Frame frame;
        need(in->try_peek(frame));
        in->release(frame);
    });
    return 0;
}
