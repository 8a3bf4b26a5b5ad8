// Fuzzes the zip reader, the restricted unpickler, the checkpoint reader and, behind it, the network builder.
// Input: one byte choosing the reader ('p': a bare pickle; 'k': a pickle, put into an archive; else: a whole
// archive).
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "isoline/model/checkpoint.h"
#include "isoline/model/unpickler.h"
#include "isoline/network/build_network.h"

using namespace isoline;

namespace {

void put(std::string& out, uint64_t v, int width) {
  for (int i = 0; i < width; ++i) out += i < 8 ? char(v >> (8 * i)) : '\0';
}

// A stored archive without checksums: x/data.pkl and the storages x/data/0, x/data/1 of 512 bytes.
std::vector<std::byte> archive_of(const std::string& pickle) {
  std::string zip, directory;
  int entries = 0;
  const auto add = [&](const std::string& name, const std::string& content) {
    const size_t at = zip.size();
    zip += "PK\x03\x04";
    put(zip, 0, 2 + 2 + 2 + 4 + 4);
    put(zip, content.size(), 4);
    put(zip, content.size(), 4);
    put(zip, name.size(), 2);
    put(zip, 0, 2);
    zip += name + content;
    directory += "PK\x01\x02";
    put(directory, 0, 2 + 2 + 2 + 2 + 4 + 4);
    put(directory, content.size(), 4);
    put(directory, content.size(), 4);
    put(directory, name.size(), 2);
    put(directory, 0, 2 + 2 + 2 + 2 + 4);
    put(directory, at, 4);
    directory += name;
    ++entries;
  };
  add("x/data/0", std::string(512, '\x3c'));
  add("x/data/1", std::string(512, '\x01'));
  add("x/data.pkl", pickle);
  std::string end = "PK\x05\x06";
  put(end, 0, 4);
  put(end, uint64_t(entries), 2);
  put(end, uint64_t(entries), 2);
  put(end, directory.size(), 4);
  put(end, zip.size(), 4);
  put(end, 0, 2);
  zip += directory + end;
  std::vector<std::byte> out(zip.size());
  std::memcpy(out.data(), zip.data(), zip.size());
  return out;
}

void read_everything(const Checkpoint& c) {
  double sum = 0;  // touches every byte a view promises
  for (const auto& [name, view] : c.weights.tensors)
    if (view.elements() < 1 << 22)
      for (float v : view.to_float()) sum += double(v);
  volatile double sink = sum;
  (void)sink;
  ArchitectureSpec spec;
  spec.features = {1, 1};
  spec.kernel_sizes = {{1, 1, 1}, {1, 1, 1}};
  spec.strides = {{1, 1, 1}, {1, 1, 1}};
  spec.blocks_per_stage = {1, 1};
  spec.decoder_convs_per_stage = {1};
  const auto graph = build_network(spec, 1, 1, c.weights);
  if (graph && !validate(*graph).ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> rest(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  if (data[0] == 'p') {
    UnpickleOptions options;
    options.functions = {"mod fn"};
    options.torch = size % 2;
    const auto pickle = unpickle(rest, options);
    if (pickle) pickle->find(pickle->root(), "key");
    return 0;
  }
  std::vector<std::byte> bytes(rest.begin(), rest.end());
  if (data[0] == 'k') bytes = archive_of({reinterpret_cast<const char*>(data) + 1, size - 1});
  const auto checkpoint = read_checkpoint(std::span<const std::byte>(bytes), nullptr);
  if (checkpoint) read_everything(*checkpoint);
  return 0;
}
