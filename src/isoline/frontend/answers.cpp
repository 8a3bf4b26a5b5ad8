#include "isoline/frontend/answers.h"

#include <algorithm>

#include "isoline/frontend/frontend.h"
#include "isoline/oip/rest.h"

namespace isoline::frontend {

using net::HttpResponse;

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kResourceExhausted:
      return 503;
    case ErrorCode::kUnsupported:
      return 501;
    case ErrorCode::kInternal:
    case ErrorCode::kIo:
      return 500;
    case ErrorCode::kCancelled:
      return 499;
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt:
      break;
  }
  return 400;
}

HttpResponse json(std::string text) {
  HttpResponse r;
  r.text = std::move(text);
  return r;
}
HttpResponse failure(int status, const std::string& message) {
  HttpResponse r = json(oip::write_error(message));
  r.status = status;
  if (status == 503) r.headers.emplace_back("Retry-After", "1");
  return r;
}
HttpResponse failure(const Error& error) {
  return failure(http_status(error.code), error.to_string());
}
HttpResponse not_allowed(const char* allowed) {
  HttpResponse r = failure(405, std::string("use ") + allowed + " here");
  r.headers.emplace_back("Allow", allowed);
  return r;
}
HttpResponse nothing(int status) {
  HttpResponse r;
  r.status = status;
  return r;
}
std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<std::vector<std::string>> split_path(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    path.remove_prefix(1);  // '/'
    const size_t slash = std::min(path.find('/'), path.size());
    auto part = net::percent_decode(path.substr(0, slash));
    if (!part || parts.size() > 16) return std::nullopt;
    parts.push_back(std::move(*part));
    path.remove_prefix(slash);
  }
  while (!parts.empty() && parts.back().empty()) parts.pop_back();
  return parts;
}

namespace {

std::string lower(std::string text) {
  for (char& c : text)
    if (c >= 'A' && c <= 'Z') c = char(c - 'A' + 'a');
  return text;
}

}  // namespace

std::string media_type(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && type.back() == ' ') type.pop_back();
  return lower(std::move(type));
}

namespace {

// A browser sends this for a page of another site: that page could not read the answer, but could have models
// unloaded by whoever looks at it. Programs send neither header.
bool from_another_site(const net::HttpHead& head) {
  if (const std::string_view site = head.header("sec-fetch-site"); !site.empty())
    return site != "same-origin" && site != "none";
  const std::string_view origin = head.header("origin");
  if (origin.empty()) return false;
  const size_t host = origin.find("://");
  return host == std::string_view::npos || origin.substr(host + 3) != head.header("host");
}

// "localhost:8000", "127.0.0.1", "[::1]:8000": what no other site can have as its name.
bool known_host(std::string_view host, const std::vector<std::string>& names) {
  if (host.empty() || host.front() == '[') return true;
  const std::string name = lower(std::string(host.substr(0, host.rfind(':'))));
  if (name.find_first_not_of("0123456789.") == std::string::npos) return true;
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  return std::any_of(names.begin(), names.end(), [&](const std::string& n) { return lower(n) == name; });
}

}  // namespace

std::optional<HttpResponse> refuse_stranger(const FrontendOptions& options, const net::HttpHead& head) {
  if (options.only_known_hosts && !known_host(head.header("host"), options.host_names))
    return failure(403,
                   "this server needs no token, so it answers to its address and 'localhost' only; start it "
                   "with --host-name for another name");
  if (head.method != "GET" && head.method != "HEAD" && from_another_site(head))
    return failure(403, "pages of other sites may not ask this server");
  if (authorized(options.tokens, head.header("authorization"))) return std::nullopt;
  HttpResponse r = failure(401, "a valid bearer token is needed");
  r.headers.emplace_back("WWW-Authenticate", "Bearer");
  return r;
}

}  // namespace isoline::frontend
