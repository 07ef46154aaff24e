// Purpose: the entry point of every test program, and the watchdog around every test.
#define CATCH_CONFIG_RUNNER
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "catch.hpp"
#include "long_form.hpp"

namespace {

// Written before the alarm is armed, read by its handler.
char current_test[512] = "";

void bark(int) {
    constexpr char kWhat[] = "watchdog: this test hangs: ";
    (void)!::write(STDERR_FILENO, kWhat, sizeof kWhat - 1);
    (void)!::write(STDERR_FILENO, current_test, std::strlen(current_test));
    (void)!::write(STDERR_FILENO, "\n", 1);
    ::signal(SIGALRM, SIG_DFL);
    ::raise(SIGALRM);
    ::_exit(99);
}

class Watchdog : public tachyon::test::ListenerBase {
  public:
    using tachyon::test::ListenerBase::ListenerBase;

    void testCaseStarting(const Catch::TestCaseInfo& info) override {
        const std::string name = info.name;
        std::strncpy(current_test, name.c_str(), sizeof current_test - 1);
        ::signal(SIGALRM, bark);
        ::alarm(tachyon::test::kWatchdogSeconds * (tachyon::test::long_form() ? 60 : 1));
    }
    void testCaseEnded(const Catch::TestCaseStats&) override { ::alarm(0); }
};

}  // namespace

CATCH_REGISTER_LISTENER(Watchdog)

int main(int argc, char** argv) {
    ::signal(SIGPIPE, SIG_DFL);  // the core must never depend on the caller ignoring it
    return Catch::Session().run(argc, argv);
}
