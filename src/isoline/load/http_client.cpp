#include "isoline/load/http_client.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "isoline/load/channel.h"

namespace isoline::load {
namespace {

using Kind = net::IoResult::Kind;
constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr size_t kReadBytes = 256 << 10;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return out;
}

}  // namespace

Result<std::unique_ptr<HttpConnection>> HttpConnection::connect(const Endpoint& endpoint) {
  ISOLINE_ASSIGN(ClientSocket socket, connect_to(endpoint));
  return std::unique_ptr<HttpConnection>(new HttpConnection(std::move(socket)));
}

void HttpConnection::start(std::span<const std::byte> request, size_t keep) {
  request_ = request;
  sent_ = 0;
  keep_ = keep;
  head_.clear();
  body_.clear();
  in_body_ = ended_ = until_close_ = false;
  status_ = 0;
  sent_ns_ = first_byte_ns_ = end_ns_ = 0;
}

bool HttpConnection::write() {
  while (sent_ < request_.size()) {
    const auto rest = request_.subspan(sent_);
    const iovec part{const_cast<std::byte*>(rest.data()), rest.size()};
    const net::IoResult r = socket_.transport->write({&part, 1});
    if (r.kind == Kind::kBlocked) return true;
    if (r.kind != Kind::kOk) return false;
    sent_ += r.bytes;
    if (sent_ == request_.size()) sent_ns_ = now_ns();
  }
  return true;
}

HttpConnection::State HttpConnection::done() {
  if (!ended_) return State::kBusy;
  if (sent_ < request_.size()) reusable_ = false;  // answered before it was sent whole
  end_ns_ = now_ns();
  return State::kDone;
}

HttpConnection::State HttpConnection::progress() {
  if (ended_) return State::kFailed;  // bytes, or the end, while nothing was asked for
  const bool written = write();       // a server that refuses may have answered all the same
  thread_local std::vector<std::byte> buffer(kReadBytes);
  while (!ended_) {
    const net::IoResult r = socket_.transport->read(buffer);
    if (r.kind == Kind::kBlocked) return written ? State::kBusy : State::kFailed;
    if (r.kind == Kind::kEnd && until_close_) {
      ended_ = true;
      break;
    }
    if (r.kind != Kind::kOk) return State::kFailed;
    if (!first_byte_ns_) first_byte_ns_ = now_ns();
    if (!take({reinterpret_cast<const char*>(buffer.data()), r.bytes})) return State::kFailed;
    if (r.drained && !ended_) return written ? State::kBusy : State::kFailed;
  }
  return done();
}

// Takes bytes of the answer; false where they are no HTTP.
bool HttpConnection::take(std::string_view bytes) {
  while (!in_body_) {
    head_.append(bytes);
    bytes = {};
    const size_t end = head_.find("\r\n\r\n");
    if (end == std::string::npos) return head_.size() <= kMaxHeadBytes;
    const std::string rest = head_.substr(end + 4);
    head_.resize(end + 2);
    if (!take_head()) return false;
    if (status_ < 200) {  // an interim answer
      head_ = rest;
      if (rest.empty()) return true;
      continue;
    }
    in_body_ = true;
    if (!left_ && !chunks_ && !until_close_) ended_ = true;
    if (ended_) return rest.empty();
    take_body(rest);
    return status_ > 0;
  }
  take_body(bytes);
  return status_ > 0;
}

bool HttpConnection::take_head() {
  const std::string_view head = head_;
  if (!head.starts_with("HTTP/1.") || head.size() < 12) return false;
  const auto [at, ec] = std::from_chars(head.data() + 9, head.data() + 12, status_);
  if (ec != std::errc() || at != head.data() + 12 || status_ < 100) return false;
  bool has_length = false;
  left_ = 0;
  chunks_.reset();
  until_close_ = false;
  reusable_ = head.starts_with("HTTP/1.1");
  size_t line = head.find("\r\n") + 2;
  while (line < head.size()) {
    const size_t end = head.find("\r\n", line);
    const std::string_view text = head.substr(line, end - line);
    line = end + 2;
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return false;
    const std::string name = lower(text.substr(0, colon));
    std::string_view value = text.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    if (name == "content-length") {
      const auto [p, problem] = std::from_chars(value.data(), value.data() + value.size(), left_);
      if (problem != std::errc() || p != value.data() + value.size()) return false;
      has_length = true;
    } else if (name == "transfer-encoding") {
      if (lower(value) != "chunked") return false;
      chunks_.emplace();
    } else if (name == "connection") {
      const std::string v = lower(value);
      reusable_ = v == "keep-alive" || (reusable_ && v != "close");
    }
  }
  until_close_ = !has_length && !chunks_ && status_ != 204 && status_ != 304 && status_ >= 200;
  if (until_close_) reusable_ = false;
  return true;
}

void HttpConnection::take_body(std::string_view bytes) {
  if (chunks_) {
    net::Bytes data;
    size_t consumed = 0;
    const auto state = chunks_->feed(bytes, consumed, data, UINT64_MAX >> 1);
    body_.append(reinterpret_cast<const char*>(data.size() ? data.data() : nullptr),
                 std::min(data.size(), keep_ - std::min(keep_, body_.size())));
    if (state == net::ChunkDecoder::State::kDone)
      ended_ = true;
    else if (state != net::ChunkDecoder::State::kMore)
      status_ = -1;
    return;
  }
  body_.append(bytes.substr(0, keep_ - std::min(keep_, body_.size())));
  if (until_close_) return;
  if (bytes.size() > left_) {
    status_ = -1;  // more than announced, and nothing else was asked for
    return;
  }
  left_ -= bytes.size();
  ended_ = left_ == 0;
}

Result<HttpConnection::Answer> HttpConnection::request(std::span<const std::byte> bytes, double timeout_s) {
  const int64_t until = now_ns() + int64_t(timeout_s * 1e9);
  start(bytes, size_t{16} << 20);
  for (;;) {
    const State state = progress();
    if (state == State::kDone) return Answer{status_, body_};
    if (state == State::kFailed)
      return Error{ErrorCode::kIo, "the server closed the connection or sent what is no HTTP", "",
                   "Check that the port is the server's REST port, and http or https."};
    if (!wait_for_fd(fd(), wants_write(), until))
      return Error{ErrorCode::kIo, "the server did not answer in time", "", "Raise --timeout."};
  }
}

std::vector<std::byte> http_request(const Endpoint& endpoint, std::string_view method, std::string_view path,
                                    std::string_view headers,
                                    std::span<const std::span<const std::byte>> body) {
  size_t length = 0;
  for (const auto& b : body) length += b.size();
  std::string head = std::string(method) + " " + std::string(path) +
                     " HTTP/1.1\r\nHost: " + endpoint.authority() + "\r\nUser-Agent: isoline-bench\r\n";
  if (!endpoint.token.empty()) head += "Authorization: Bearer " + endpoint.token + "\r\n";
  head += headers;
  if (method == "POST") head += "Content-Length: " + std::to_string(length) + "\r\n";
  head += "\r\n";
  std::vector<std::byte> out;
  out.reserve(head.size() + length);
  const auto bytes = std::as_bytes(std::span(head));
  out.insert(out.end(), bytes.begin(), bytes.end());
  for (const auto& b : body) out.insert(out.end(), b.begin(), b.end());
  return out;
}

std::string error_text(const std::string& body) {
  const auto json = nlohmann::json::parse(body, nullptr, false);
  if (json.is_object() && json.contains("error") && json["error"].is_string()) return json["error"];
  return body.substr(0, 200);
}

}  // namespace isoline::load
