// The commands by name: for the program, main.cpp, and for the module of the package, tachyon/_bench.pyx.
#include <functional>
#include <map>

#include "programs.hpp"

namespace bench {
namespace {

int run_probe(Control& control, const Arguments&) {
    const Placement placement = pair(control, [] {}, [] {});
    print("probe", {0, 0}, {control.probe, placement});
    return 0;
}

}  // namespace

int run(const Arguments& arguments) {
    const std::map<std::string, std::function<int(Control&, const Arguments&)>> all = {
        {"one_way", run_channels}, {"round_trip", run_channels}, {"rpc", run_rpc},       {"camera", run_camera},
        {"release", run_release},  {"buses", run_buses},         {"set_up", run_set_up}, {"memory", run_memory},
        {"idle", run_idle},        {"probe", run_probe},
    };
    const auto found = arguments.empty() ? all.end() : all.find(arguments[0]);
    if (found == all.end()) {
        std::fprintf(stderr, "usage: COMMAND [ARGUMENTS], COMMAND one of:");
        for (const auto& [name, command] : all) std::fprintf(stderr, " %s", name.c_str());
        std::fputc('\n', stderr);
        return 2;
    }
    const Shared memory(sizeof(Control));
    return found->second(*new (memory.get()) Control, arguments);
}

}  // namespace bench
