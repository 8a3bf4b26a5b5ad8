#include "isoline/lab/fingerprint.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <new>
#include <span>

#include "isoline/base/file.h"

namespace isoline::lab {
namespace {

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    if (!context_ || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  }
  void add(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string out;
    for (unsigned i = 0; i < size; ++i) {
      constexpr char kDigits[] = "0123456789abcdef";
      out += kDigits[digest[i] >> 4];
      out += kDigits[digest[i] & 15];
    }
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string sha256_of_bytes(std::span<const std::byte> bytes) {
  Sha256 sha;
  sha.add(bytes.data(), bytes.size());
  return sha.hex();
}

std::string sha256_of_text(const std::string& text) {
  return sha256_of_bytes(std::as_bytes(std::span(text)));
}

Result<std::string> sha256_of_file(const std::string& path) {
  ISOLINE_ASSIGN(const InputFile file, InputFile::open(path));
  Sha256 sha;
  std::vector<std::byte> block(1 << 20);
  for (uint64_t at = 0; at < file.byte_size(); at += block.size()) {
    const size_t size = size_t(std::min<uint64_t>(block.size(), file.byte_size() - at));
    ISOLINE_RETURN_IF_ERROR(file.read_at(at, std::span(block).first(size)));
    sha.add(block.data(), size);
  }
  return sha.hex();
}

Result<std::string> sha256_of_model(const ModelSpec& spec, const std::vector<std::string>& folds) {
  namespace fs = std::filesystem;
  std::vector<std::string> names;  // relative to the folder; each enters with its content
  if (spec.onnx_file.empty()) {
    names = {"dataset.json", "plans.json"};
    for (const std::string& fold : folds) names.push_back("fold_" + fold + "/" + spec.checkpoint_name);
  } else {
    names = {"isoline.json", fs::path(spec.onnx_file).filename().string()};
  }
  std::sort(names.begin(), names.end());
  const fs::path folder =
      spec.onnx_file.empty() ? fs::path(spec.folder) : fs::path(spec.onnx_file).parent_path();
  std::string list;
  for (const std::string& name : names) {
    ISOLINE_ASSIGN(const std::string sha, sha256_of_file((folder / name).string()));
    list += sha + "  " + name + "\n";
  }
  return sha256_of_text(list);
}

}  // namespace isoline::lab
