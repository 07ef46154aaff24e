// Purpose: what the files of this program offer each other: measurements by name, and how a sample is printed.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "measure.hpp"

namespace bench {

using Measure = Sample (*)(Control&, const Shape&, std::uint64_t budget_ns);

struct Entry {
    const char* name;
    Measure one_way, round_trip;  // nullptr: it has none
    // A library that keeps threads cannot be used after a fork of a process that has used it: each repetition in its own.
    bool alone = false;
};

template <class Channel>
constexpr Entry entry(bool alone = false) {
    return {Channel::kName, one_way<Channel>, round_trip<Channel>, alone};
}

// Boost's capacity is a template argument: only the sizes and capacities of the grid are there. nullptr: no Boost, or another.
Measure boost_one_way(const Shape& shape);
Measure boost_round_trip(const Shape& shape);

// A line of JSON; `what` is written as it is.
inline void print(const std::string& what, const Shape& shape, const Sample& sample) {
    std::printf(R"({"what": "%s", "size": %zu, "capacity": %zu, "value": %.6g, "placement": "%s")", what.c_str(),
                shape.size, shape.capacity, sample.value, name(sample.placement));
    if (!sample.quantiles.empty()) {
        std::printf(", \"quantiles\": [");
        const char* comma = "";
        for (const auto& [share, ns] : sample.quantiles) {
            std::printf("%s[%.6g, %.6g]", comma, share, ns);
            comma = ", ";
        }
        std::printf("]");
    }
    std::printf("}\n");
    std::fflush(stdout);
}

// Each is a command of its own: arguments after its name; prints samples; what main returns.
using Arguments = std::vector<std::string>;
int run_channels(Control& control, const Arguments& arguments);
int run_rpc(Control& control, const Arguments& arguments);
int run_camera(Control& control, const Arguments& arguments);
int run_release(Control& control, const Arguments& arguments);
int run_buses(Control& control, const Arguments& arguments);
int run_set_up(Control& control, const Arguments& arguments);
int run_memory(Control& control, const Arguments& arguments);
int run_idle(Control& control, const Arguments& arguments);
// The command that they begin with.
int run(const Arguments& arguments);

inline std::size_t number(const Arguments& arguments, std::size_t index, std::size_t otherwise) {
    return index < arguments.size() ? static_cast<std::size_t>(std::strtoull(arguments[index].c_str(), nullptr, 10))
                                    : otherwise;
}

}  // namespace bench
