// Purpose: one side of an RPC behind two gates, as a host hands it out. Calls and replies share what is known of each id, so free
//   code is inside both at once; a locked user may call while another one waits for a reply.
// Threads: see gate.hpp. Lifetime: as the two handles in it. Ordering: the gates'.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "tachyon/host/bus_handle.hpp"
#include "tachyon/rpc.hpp"

namespace tachyon {

inline constexpr std::uint32_t kMostReplyType = 0xffff;
inline constexpr std::uint32_t kMostCallType = 0xfffe;  // the last one says that a call has failed

class RpcHandle {
  public:
    enum class Role : bool { callee, caller };
    RpcHandle(RpcRings rings, const std::string& path, Role role);

    // For a host's object that was made without being opened: it is closed.
    static RpcHandle* never_opened() noexcept;

    [[nodiscard]] BusHandle& calls() noexcept { return calls_; }
    [[nodiscard]] BusHandle& replies() noexcept { return replies_; }
    [[nodiscard]] Caller* caller() noexcept { return caller_.get(); }  // one of the two is null
    [[nodiscard]] Callee* callee() noexcept { return callee_.get(); }
    // The ways of an answer and of a reply: for who is inside replies(), until the next call of the same.
    [[nodiscard]] Outlet* answer(std::uint64_t id) noexcept { return &answer_.emplace(*callee_, id); }
    [[nodiscard]] Inlet* reply_to(std::uint64_t id) noexcept { return &reply_.emplace(*caller_, id); }
    void close(End how) noexcept {
        calls_.close(how);
        replies_.close(how);
    }

    // ---- free code: as BusHandle; also wrong_side, bad_type, unknown_call ----

    [[nodiscard]] Status claim_call(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting);
    [[nodiscard]] Status commit_call(std::uint32_t size, std::uint32_t msg_type, std::uint64_t& id) noexcept;
    [[nodiscard]] Status abort_call() noexcept;
    [[nodiscard]] Status call(const void* data, std::uint64_t size, std::uint32_t msg_type, std::uint64_t& id,
                              const Waiting& waiting);
    // One reply at a time is held (claim_open).
    [[nodiscard]] Status peek_reply(std::uint64_t id, Frame& frame, const Waiting& waiting);
    [[nodiscard]] Status release_reply(const Frame& frame) noexcept;
    [[nodiscard]] Status cancel(std::uint64_t id) noexcept;

    [[nodiscard]] Status peek_call(Frame& frame, const Waiting& waiting);
    [[nodiscard]] Status release_call(const Frame& frame) noexcept;
    [[nodiscard]] Status claim_reply(std::uint64_t id, std::uint64_t size, std::uint8_t*& payload,
                                     const Waiting& waiting);
    [[nodiscard]] Status commit_reply(std::uint64_t id, std::uint32_t size, std::uint32_t msg_type) noexcept;
    [[nodiscard]] Status abort_reply() noexcept;
    [[nodiscard]] Status reply(std::uint64_t id, const void* data, std::uint64_t size, std::uint32_t msg_type,
                               const Waiting& waiting);

  private:
    // Takes replies out of the ring only while nobody else is in there.
    class HostedCaller final : public Caller {
      public:
        HostedCaller(RpcRings& rings, BusHandle& replies) noexcept : Caller(rings), handle_(replies) {}

      private:
        void gather_meanwhile() noexcept override;
        BusHandle& handle_;
    };
    class FreeUseOfBoth;

    RpcHandle() : calls_(nullptr, ""), replies_(nullptr, "") {}
    [[nodiscard]] Status why_not_entered() const noexcept;
    [[nodiscard]] Status not_this_side() const noexcept {
        return caller_ || callee_ ? Status::wrong_side : Status::closed;
    }

    std::unique_ptr<HostedCaller> caller_;
    std::unique_ptr<Callee> callee_;
    BusHandle calls_;
    BusHandle replies_;
    std::optional<Answer> answer_;
    std::optional<Reply> reply_;
    Frame held_reply_{};  // by free code
};

}  // namespace tachyon
