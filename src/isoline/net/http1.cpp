#include "isoline/net/http1.h"

#include <algorithm>
#include <charconv>

namespace isoline::net {
namespace {

bool is_token(char c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos && c != '\0';
}
char lower(char c) {
  return c >= 'A' && c <= 'Z' ? char(c + 32) : c;
}
bool equals(std::string_view a, std::string_view lower_case) {
  return a.size() == lower_case.size() &&
         std::equal(a.begin(), a.end(), lower_case.begin(), [](char x, char y) { return lower(x) == y; });
}
std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}
// Is `item` one of a comma-separated list?
bool lists(std::string_view list, std::string_view item) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (equals(trim(list.substr(0, comma)), item)) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}
HeadResult refused(int status, std::string reason) {
  HeadResult r;
  r.kind = HeadResult::Kind::kRefused;
  r.status = status;
  r.reason = std::move(reason);
  return r;
}
// A line without its CRLF from the front of `text`; nothing if a bare newline or control character spoils it.
std::optional<std::string_view> take_line(std::string_view& text) {
  const size_t end = text.find("\r\n");
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 2);
  for (unsigned char c : line)
    if ((c < 0x20 && c != '\t') || c == 0x7F) return std::nullopt;
  return line;
}

std::optional<HeadResult> read_request_line(std::string_view line, HttpHead& head) {
  const size_t a = line.find(' '), b = line.rfind(' ');
  if (a == std::string_view::npos || a == b || a == 0) return refused(400, "the request line is malformed");
  head.method = std::string(line.substr(0, a));
  if (!std::all_of(head.method.begin(), head.method.end(), is_token))
    return refused(400, "the request line is malformed");
  const std::string_view version = line.substr(b + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0")
    return version.starts_with("HTTP/") ? refused(505, "only HTTP/1.1 and HTTP/1.0 are served here")
                                        : refused(400, "the request line is malformed");
  head.keep_alive = version == "HTTP/1.1";
  std::string_view target = line.substr(a + 1, b - a - 1);
  if (target.starts_with("http://") || target.starts_with("https://")) {  // absolute form, as to a proxy
    const size_t slash = target.find('/', target.find("//") + 2);
    target = slash == std::string_view::npos ? "/" : target.substr(slash);
  }
  if (target.empty() || target[0] != '/' || target.find(' ') != std::string_view::npos)
    return refused(400, "the request's target must be a path");
  const size_t question = std::min(target.find('?'), target.size());
  head.path = std::string(target.substr(0, question));
  head.query = question < target.size() ? std::string(target.substr(question + 1)) : std::string();
  return std::nullopt;
}

}  // namespace

std::string_view HttpHead::header(std::string_view name) const {
  for (const auto& [n, v] : headers)
    if (n == name) return v;
  return {};
}

HeadResult parse_head(std::string_view bytes, const HttpLimits& limits, HttpHead& head) {
  const size_t end = bytes.substr(0, limits.max_head_bytes).find("\r\n\r\n");
  if (end == std::string_view::npos) {
    if (bytes.size() >= limits.max_head_bytes)
      return refused(431, "the request's head is above the limit of " +
                              std::to_string(limits.max_head_bytes) + " bytes");
    // What cannot become a request is refused early: a method is a token.
    for (char c : bytes.substr(0, std::min<size_t>(bytes.find(' '), 32)))
      if (!is_token(c) && c != '\r') return refused(400, "the request line is malformed");
    return {};
  }
  std::string_view text = bytes.substr(0, end + 2);
  head = {};
  const auto line = take_line(text);
  if (!line) return refused(400, "the request line is malformed");
  if (auto r = read_request_line(*line, head)) return *r;
  bool host = false;
  while (!text.empty()) {
    const auto field = take_line(text);
    if (!field) return refused(400, "a header is malformed");
    const size_t colon = field->find(':');
    if (colon == std::string_view::npos || colon == 0) return refused(400, "a header is malformed");
    std::string name(field->substr(0, colon));
    if (!std::all_of(name.begin(), name.end(), is_token))
      return refused(400, "a header's name is malformed");  // also a folded line
    std::transform(name.begin(), name.end(), name.begin(), lower);
    const std::string_view value = trim(field->substr(colon + 1));
    if (head.headers.size() >= limits.max_headers)
      return refused(431, "more than " + std::to_string(limits.max_headers) + " headers");
    if (name == "content-length") {
      uint64_t n = 0;
      const auto r = std::from_chars(value.data(), value.data() + value.size(), n);
      if (value.empty() || r.ptr != value.data() + value.size() || r.ec == std::errc::invalid_argument)
        return refused(400, "Content-Length is no number");
      if (r.ec != std::errc()) n = UINT64_MAX;
      if (head.content_length && *head.content_length != n)
        return refused(400, "Content-Length is given twice");
      head.content_length = n;
    } else if (name == "transfer-encoding") {
      if (head.chunked || !equals(value, "chunked"))
        return refused(501, "only the transfer coding 'chunked' is served");
      head.chunked = true;
    } else if (name == "connection") {
      if (lists(value, "close")) head.keep_alive = false;
      if (lists(value, "keep-alive") && line->ends_with("1.0")) head.keep_alive = true;
    } else if (name == "expect") {
      if (!equals(value, "100-continue")) return refused(417, "only 'Expect: 100-continue' is served");
      head.expects_continue = true;
    } else if (name == "host") {
      if (host) return refused(400, "Host is given twice");
      host = true;
    }
    head.headers.emplace_back(std::move(name), std::string(value));
  }
  if (head.chunked && head.content_length)
    return refused(400, "both Content-Length and Transfer-Encoding are given");
  // A proxy that speaks 1.0 passes chunks through without knowing where they end.
  const bool is_1_0 = line->ends_with("1.0");
  if (head.chunked && is_1_0) return refused(400, "HTTP/1.0 has no Transfer-Encoding");
  if (!host && !is_1_0) return refused(400, "Host is missing");
  HeadResult result;
  result.consumed = end + 4;
  if (head.content_length && *head.content_length > limits.max_body_bytes) {
    HeadResult r =
        refused(413, "the body is above the limit of " + std::to_string(limits.max_body_bytes) + " bytes");
    r.consumed = result.consumed;
    return r;
  }
  result.kind = HeadResult::Kind::kComplete;
  return result;
}

ChunkDecoder::State ChunkDecoder::feed(std::string_view in, size_t& consumed, Bytes& body,
                                       uint64_t max_bytes) {
  constexpr size_t kMaxLine = 1024;
  consumed = 0;
  while (consumed < in.size()) {
    const char c = in[consumed];
    switch (part_) {
      case Part::kSize: {
        const int digit = c >= '0' && c <= '9'                 ? c - '0'
                          : lower(c) >= 'a' && lower(c) <= 'f' ? lower(c) - 'a' + 10
                                                               : -1;
        if (digit >= 0) {
          if (++digits_ > 16) return State::kMalformed;
          left_ = left_ << 4 | uint64_t(digit);
          ++consumed;
          break;
        }
        if (!digits_) return State::kMalformed;
        if (c != '\r' && c != ';' && c != ' ' && c != '\t') return State::kMalformed;
        if (left_ > max_bytes || body.size() > max_bytes - left_) return State::kTooLarge;
        part_ = c == '\r' ? Part::kSizeEnd : Part::kExtension;
        line_ = 0;
        ++consumed;
        break;
      }
      case Part::kExtension:
        if (++line_ > kMaxLine || (static_cast<unsigned char>(c) < 0x20 && c != '\r' && c != '\t'))
          return State::kMalformed;
        if (c == '\r') part_ = Part::kSizeEnd;
        ++consumed;
        break;
      case Part::kSizeEnd:
        if (c != '\n') return State::kMalformed;
        part_ = left_ ? Part::kData : Part::kTrailer;
        digits_ = 0;
        line_ = 0;
        line_empty_ = true;
        ++consumed;
        break;
      case Part::kData: {
        const size_t n = size_t(std::min<uint64_t>(left_, in.size() - consumed));
        if (!body.append(std::as_bytes(std::span(in.substr(consumed, n))), size_t(max_bytes)))
          return State::kNoMemory;
        consumed += n;
        left_ -= n;
        if (!left_) part_ = Part::kDataReturn;
        break;
      }
      case Part::kDataReturn:
        if (c != '\r') return State::kMalformed;
        part_ = Part::kDataNewline;
        ++consumed;
        break;
      case Part::kDataNewline:
        if (c != '\n') return State::kMalformed;
        part_ = Part::kSize;
        ++consumed;
        break;
      case Part::kTrailer:
        ++consumed;
        if (++line_ > kMaxLine) return State::kMalformed;
        if (c == '\r')
          part_ = Part::kTrailerEnd;
        else if (static_cast<unsigned char>(c) < 0x20 && c != '\t')
          return State::kMalformed;
        else
          line_empty_ = false;
        break;
      case Part::kTrailerEnd:
        if (c != '\n') return State::kMalformed;
        ++consumed;
        if (line_empty_) return State::kDone;
        part_ = Part::kTrailer;
        line_empty_ = true;
        break;
    }
  }
  return State::kMore;
}

const char* status_reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    case 507:
      return "Insufficient Storage";
    default:
      return "Unknown";
  }
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= text.size()) return std::nullopt;
    const auto r = std::from_chars(text.data() + i + 1, text.data() + i + 3, value, 16);
    if (r.ec != std::errc() || r.ptr != text.data() + i + 3 || !value) return std::nullopt;
    out += char(value);
    i += 2;
  }
  return out;
}

}  // namespace isoline::net
