#include "tachyon/host/rpc_handle.hpp"

#include <utility>

namespace tachyon {

RpcHandle::RpcHandle(RpcRings rings, const std::string& path, Role role)
    : caller_(role == Role::caller ? std::make_unique<HostedCaller>(rings, replies_) : nullptr),
      callee_(role == Role::callee ? std::make_unique<Callee>(rings) : nullptr),
      calls_(std::move(rings.calls), path),
      replies_(std::move(rings.replies), path) {}

RpcHandle* RpcHandle::never_opened() noexcept {
    static RpcHandle handle;
    return &handle;
}

void RpcHandle::HostedCaller::gather_meanwhile() noexcept {
    if (handle_.gate().is_inside(Gate::User::free)) return gather();  // by the same call as this
    if (handle_.closing() || !handle_.enter()) return;
    gather();
    handle_.leave();
}

// Free code inside both, as long as this lives.
class RpcHandle::FreeUseOfBoth {
  public:
    explicit FreeUseOfBoth(RpcHandle& handle) noexcept
        : handle_(handle), calls_(handle.calls_.enter_free()), both_(calls_ && handle.replies_.enter_free()) {}
    FreeUseOfBoth(const FreeUseOfBoth&) = delete;
    FreeUseOfBoth& operator=(const FreeUseOfBoth&) = delete;
    ~FreeUseOfBoth() {
        if (both_) handle_.replies_.leave_free();
        if (calls_) handle_.calls_.leave_free();
    }
    explicit operator bool() const noexcept { return both_; }

  private:
    RpcHandle& handle_;
    const bool calls_;
    const bool both_;
};

Status RpcHandle::why_not_entered() const noexcept {
    const Status status = calls_.why_not_entered();
    return status != Status::busy ? status : replies_.why_not_entered();
}

// ---- the caller ----------------------------------------------------------------------------------------------------------

Status RpcHandle::claim_call(std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting) {
    if (!caller_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    const Status status = caller_->Outlet::claim(size, payload, waiting);
    if (status == Status::ok) calls_.gate_.hold(1);
    return status;
}

Status RpcHandle::commit_call(std::uint32_t size, std::uint32_t msg_type, std::uint64_t& id) noexcept {
    if (!caller_) return not_this_side();
    if (msg_type > kMostCallType) return Status::bad_type;
    const FreeUseOfBoth inside(*this);
    if (!inside) return calls_.let_go_refused(why_not_entered(), 1);
    const Status status = caller_->commit(size, msg_type);
    if (status == Status::ok) id = caller_->last_id();
    calls_.let_go_after(status);
    return status;
}

Status RpcHandle::abort_call() noexcept { return caller_ ? calls_.abort() : not_this_side(); }

Status RpcHandle::call(const void* data, std::uint64_t size, std::uint32_t msg_type, std::uint64_t& id,
                       const Waiting& waiting) {
    if (!caller_) return not_this_side();
    if (msg_type > kMostCallType) return Status::bad_type;
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    const Status status = caller_->send(data, size, msg_type, waiting);
    if (status == Status::ok) id = caller_->last_id();
    return status;
}

Status RpcHandle::peek_reply(std::uint64_t id, Frame& frame, const Waiting& waiting) {
    if (!caller_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    if (replies_.gate_.held() != 0) return Status::claim_open;
    const Status status = Reply(*caller_, id).peek(frame, waiting);
    if (status == Status::ok) {
        held_reply_ = frame;
        replies_.gate_.hold(1);
    }
    return status;
}

Status RpcHandle::release_reply(const Frame& frame) noexcept {
    if (!caller_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return replies_.let_go_refused(why_not_entered(), 1);
    if (replies_.gate_.held() == 0 || held_reply_.correlation_id != frame.correlation_id) return Status::no_claim;
    caller_->release(held_reply_);  // our own copy of it
    replies_.gate_.let_go(1);
    return replies_.bus_->state();
}

Status RpcHandle::cancel(std::uint64_t id) noexcept {
    if (!caller_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    return caller_->cancel(id) ? Status::ok : Status::unknown_call;
}

// ---- the callee ----------------------------------------------------------------------------------------------------------

Status RpcHandle::peek_call(Frame& frame, const Waiting& waiting) {
    if (!callee_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    const Status status = callee_->peek(frame, waiting);
    if (status == Status::ok) calls_.gate_.hold(1);
    return status;
}

Status RpcHandle::release_call(const Frame& frame) noexcept {
    return callee_ ? calls_.release(frame) : not_this_side();
}

Status RpcHandle::claim_reply(std::uint64_t id, std::uint64_t size, std::uint8_t*& payload, const Waiting& waiting) {
    if (!callee_) return not_this_side();
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    Answer answer(*callee_, id);
    const Status status = static_cast<Outlet&>(answer).claim(size, payload, waiting);
    if (status == Status::ok) replies_.gate_.hold(1);
    return status;
}

Status RpcHandle::commit_reply(std::uint64_t id, std::uint32_t size, std::uint32_t msg_type) noexcept {
    if (!callee_) return not_this_side();
    if (msg_type > kMostReplyType) return Status::bad_type;
    const FreeUseOfBoth inside(*this);
    if (!inside) return replies_.let_go_refused(why_not_entered(), 1);
    const Status status = Answer(*callee_, id).commit(size, msg_type);
    replies_.let_go_after(status);
    return status;
}

Status RpcHandle::abort_reply() noexcept { return callee_ ? replies_.abort() : not_this_side(); }

Status RpcHandle::reply(std::uint64_t id, const void* data, std::uint64_t size, std::uint32_t msg_type,
                        const Waiting& waiting) {
    if (!callee_) return not_this_side();
    if (msg_type > kMostReplyType) return Status::bad_type;
    const FreeUseOfBoth inside(*this);
    if (!inside) return why_not_entered();
    return Answer(*callee_, id).send(data, size, msg_type, waiting);
}

}  // namespace tachyon
