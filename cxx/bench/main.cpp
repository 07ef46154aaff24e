// The C++ side of `make bench`: two pinned processes, next to what they are compared with. Each sample is a line of JSON;
// `python bench` asks for them in turns and makes ratios of them.
//
//   tachyon_bench COMMAND [ARGUMENTS]    without arguments it lists what there is
#include <functional>
#include <map>

#include "programs.hpp"

namespace {

using bench::Arguments;
using bench::Control;

int run_probe(Control& control, const Arguments&) {
    const bench::Placement placement = bench::pair(control, [] {}, [] {});
    bench::print("probe", {0, 0}, {control.probe, placement});
    return 0;
}

// With what this was built, and which peers it has.
int run_info(Control&, const Arguments&) {
    std::printf(R"({"compiler": "%s", "flags": "%s", "peers": {)", TACHYON_BENCH_COMPILER, TACHYON_BENCH_FLAGS);
    std::printf(R"("boost": "%s", "zeromq": "%s", "nng": "%s"}})", TACHYON_BENCH_BOOST, TACHYON_BENCH_ZMQ,
                TACHYON_BENCH_NNG);
    std::printf("\n");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::map<std::string, std::function<int(Control&, const Arguments&)>> all = {
        {"one_way", bench::run_channels},
        {"round_trip", bench::run_channels},
        {"rpc", bench::run_rpc},
        {"camera", bench::run_camera},
        {"release", bench::run_release},
        {"buses", bench::run_buses},
        {"set_up", bench::run_set_up},
        {"memory", bench::run_memory},
        {"idle", bench::run_idle},
        {"probe", run_probe},
        {"info", run_info},
    };
    const Arguments arguments(argv + 1, argv + argc);
    const auto found = arguments.empty() ? all.end() : all.find(arguments[0]);
    if (found == all.end()) {
        std::fprintf(stderr, "usage: %s COMMAND [ARGUMENTS], COMMAND one of:", argv[0]);
        for (const auto& [name, run] : all) std::fprintf(stderr, " %s", name.c_str());
        std::fputc('\n', stderr);
        return 2;
    }
    const bench::Shared memory(sizeof(Control));
    return found->second(*new (memory.get()) Control, arguments);
}
