// Purpose: what goes through the kernel: pipe, UNIX socket, and the libraries over them, as their documentation uses them.
// They block; their memory is the kernel's or their own, so a capacity means little to them.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "channels.hpp"
#include "measure.hpp"

#ifdef HAVE_ZMQ
#include <zmq.h>
#endif
#ifdef HAVE_NNG
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#endif

namespace bench {

inline void write_all(int descriptor, const void* data, std::size_t size) {
    for (const auto* next = static_cast<const char*>(data); size > 0;) {
        const ssize_t count = ::write(descriptor, next, size);
        if (count <= 0) std::exit(5);
        next += count;
        size -= static_cast<std::size_t>(count);
    }
}
inline void read_all(int descriptor, void* to, std::size_t size) {
    for (auto* next = static_cast<char*>(to); size > 0;) {
        const ssize_t count = ::read(descriptor, next, size);
        if (count <= 0) std::exit(5);
        next += count;
        size -= static_cast<std::size_t>(count);
    }
}

enum class Kind : bool { pipe, socket };

template <Kind kKind>
class Stream {
  public:
    static constexpr const char* kName = kKind == Kind::pipe ? "pipe" : "unix";
    explicit Stream(const Shape& shape) : size_(shape.size) {
        if constexpr (kKind == Kind::pipe) {
            if (::pipe2(ends_, O_CLOEXEC) != 0) std::abort();
            ::fcntl(ends_[1], F_SETPIPE_SZ, 1 << 20);  // where that is allowed
        } else {
            if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends_) != 0) std::abort();
        }
    }
    ~Stream() {
        for (const int end : ends_) ::close(end);
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    void open_sender() {}
    void open_receiver() {}
    void send(const void* data) { write_all(ends_[1], data, size_); }
    void flush() {}
    void receive(void* to) { read_all(ends_[0], to, size_); }

  private:
    std::size_t size_;
    int ends_[2]{};
};

#ifdef HAVE_ZMQ
class ZeroMq {
  public:
    static constexpr const char* kName = "zmq";
    explicit ZeroMq(const Shape& shape) : size_(shape.size), address_("ipc://" + new_path()) {}
    ~ZeroMq() {
        if (socket_ == nullptr) return;
        ::zmq_close(socket_);
        ::zmq_ctx_term(context_);
    }
    ZeroMq(const ZeroMq&) = delete;
    ZeroMq& operator=(const ZeroMq&) = delete;
    void open_sender() { open(::zmq_bind); }
    void open_receiver() { open(::zmq_connect); }
    void send(const void* data) {
        if (::zmq_send(socket_, data, size_, 0) < 0) std::exit(5);
    }
    void flush() {}
    void receive(void* to) {
        if (::zmq_recv(socket_, to, size_, 0) < 0) std::exit(5);
    }

  private:
    void open(int (*attach)(void*, const char*)) {
        context_ = ::zmq_ctx_new();
        socket_ = ::zmq_socket(context_, ZMQ_PAIR);
        const int linger = 0;
        ::zmq_setsockopt(socket_, ZMQ_LINGER, &linger, sizeof linger);
        if (attach(socket_, address_.c_str()) != 0) std::exit(5);
    }
    std::size_t size_;
    std::string address_;
    void* context_ = nullptr;
    void* socket_ = nullptr;
};
#endif

#ifdef HAVE_NNG
class Nng {
  public:
    static constexpr const char* kName = "nng";
    explicit Nng(const Shape& shape) : size_(shape.size), address_("ipc://" + new_path()) {}
    ~Nng() { ::nng_close(socket_); }
    Nng(const Nng&) = delete;
    Nng& operator=(const Nng&) = delete;
    void open_sender() {
        check(::nng_pair0_open(&socket_));
        check(::nng_socket_set_int(socket_, NNG_OPT_SENDBUF, 128));
        check(::nng_listen(socket_, address_.c_str(), nullptr, 0));
    }
    void open_receiver() {
        check(::nng_pair0_open(&socket_));
        check(::nng_socket_set_int(socket_, NNG_OPT_RECVBUF, 128));
        check(::nng_socket_set_size(socket_, NNG_OPT_RECVMAXSZ, 0));
        for (int tries = 0; ::nng_dial(socket_, address_.c_str(), nullptr, 0) != 0; ++tries) {
            if (tries == 1000) std::exit(5);
            ::usleep(10'000);
        }
    }
    void send(const void* data) { check(::nng_send(socket_, const_cast<void*>(data), size_, 0)); }
    void flush() {}
    void receive(void* to) {
        std::size_t size = size_;
        check(::nng_recv(socket_, to, &size, 0));
    }

  private:
    static void check(int error) {
        if (error != 0) std::exit(5);
    }
    std::size_t size_;
    std::string address_;
    nng_socket socket_ = NNG_SOCKET_INITIALIZER;
};
#endif

}  // namespace bench
