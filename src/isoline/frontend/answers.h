// What the REST handlers read from requests and answer with. Internal to the room.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "isoline/base/result.h"
#include "isoline/frontend/frontend.h"
#include "isoline/net/server.h"

namespace isoline::frontend {

int http_status(ErrorCode code);
net::HttpResponse json(std::string text);
net::HttpResponse failure(int status, const std::string& message);
net::HttpResponse failure(const Error& error);
net::HttpResponse not_allowed(const char* allowed);  // 405
net::HttpResponse nothing(int status = 200);

std::string_view text_of(std::span<const std::byte> bytes);
// "/v2/models/m" -> {"v2", "models", "m"}, percent escapes resolved after cutting; nothing if malformed.
std::optional<std::vector<std::string>> split_path(std::string_view path);
// "Image/PNG; q=1" -> "image/png".
std::string media_type(std::string_view content_type);

// The refusal of a request that carries none of the tokens, that a page of another site sent, or that is for
// a host this server does not know as itself.
std::optional<net::HttpResponse> refuse_stranger(const FrontendOptions& options, const net::HttpHead& head);

}  // namespace isoline::frontend
