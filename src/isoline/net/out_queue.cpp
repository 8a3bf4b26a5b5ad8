#include "isoline/net/out_queue.h"

#include <sys/uio.h>

#include <algorithm>

namespace isoline::net {
namespace {
constexpr size_t kCopyBelow = 4096;  // small segments are joined: fewer pieces, fewer packets
constexpr size_t kJoinUpTo = 16384;
}  // namespace

void OutQueue::text(std::string_view text) {
  if (text.empty()) return;
  bytes_ += text.size();
  if (!pieces_.empty() && !pieces_.back().segment.owner &&
      pieces_.back().text.size() + text.size() <= kJoinUpTo)
    pieces_.back().text.append(text);
  else
    pieces_.push_back({std::string(text), {}});
}

void OutQueue::segment(Segment segment) {
  if (segment.bytes.size() < kCopyBelow || !segment.owner)
    return text({reinterpret_cast<const char*>(segment.bytes.data()), segment.bytes.size()});
  bytes_ += segment.bytes.size();
  pieces_.push_back({{}, std::move(segment)});
}

OutQueue::Flushed OutQueue::flush(Transport& transport, uint64_t& written) {
  while (!pieces_.empty()) {
    iovec parts[32];
    int n = 0;
    size_t skip = done_;
    for (auto it = pieces_.begin(); it != pieces_.end() && n < 32; ++it, skip = 0) {
      const auto bytes = it->bytes().subspan(skip);
      parts[n++] = {const_cast<std::byte*>(bytes.data()), bytes.size()};
    }
    const IoResult r = transport.write({parts, size_t(n)});
    if (r.kind == IoResult::Kind::kBlocked) return Flushed::kBlocked;
    if (r.kind != IoResult::Kind::kOk) return Flushed::kFailed;
    written += r.bytes;
    bytes_ -= r.bytes;
    size_t left = r.bytes + done_;
    while (!pieces_.empty() && left >= pieces_.front().bytes().size()) {
      left -= pieces_.front().bytes().size();
      pieces_.pop_front();
    }
    done_ = left;
  }
  return Flushed::kAll;
}

}  // namespace isoline::net
