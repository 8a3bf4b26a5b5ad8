// NIfTI against stored answers of SimpleITK and nibabel (tests/goldens/make_io_goldens.py), and against bad
// files.
#include "isoline/io/nifti.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "isoline/base/file.h"
#include "isoline/base/resources.h"
#include "isoline/io/gzip.h"
#include "isoline/io/nifti_header.h"
#include "isoline/io/npy.h"

namespace isoline {
namespace {

namespace fs = std::filesystem;
const std::string kGoldens = std::string(ISOLINE_SOURCE_DIR) + "/tests/goldens/io/";

ThreadPool& pool() {
  static ThreadPool p(2);
  return p;
}

std::vector<std::byte> bytes_of(const std::string& path) {
  auto b = read_whole_file(path, 1 << 30);
  EXPECT_TRUE(b.ok()) << path;
  return {b->begin(), b->end()};
}

// A folder that goes away with the test.
class Folder {
 public:
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "isoline-io-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  size_t entries() const {
    return size_t(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  std::string path_;
};

std::vector<float> as_float(const Image& image) {
  return std::visit([](const auto& b) { return std::vector<float>(b.begin(), b.end()); }, image.data);
}

LabelMap labels_of(const Scan& scan) {
  LabelMap labels(scan.image.shape, scan.image.geometry);
  const std::vector<float> v = as_float(scan.image);
  for (size_t i = 0; i < v.size(); ++i) labels.data[i] = uint16_t(v[i]);
  return labels;
}

std::string error_of(std::span<const std::byte> bytes, ReaderKind kind = ReaderKind::kSimpleItk,
                     ErrorCode code = ErrorCode::kCorrupt, const ReadLimits& limits = {}) {
  const auto scan = read_nifti_bytes(bytes, "in memory", kind, limits, pool());
  if (scan.ok()) return "no error";
  EXPECT_EQ(scan.error().code, code) << scan.error().to_string();
  EXPECT_EQ(scan.error().context.rfind("in memory", 0), 0u) << scan.error().to_string();
  return scan.error().to_string();
}
#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

// A small, good file: 5 x 4 x 3 int16.
std::vector<std::byte> good() {
  return bytes_of(kGoldens + "plain.nii.gz");
}
std::vector<std::byte> good_plain() {
  std::vector<std::byte> out(352 + 120);
  EXPECT_TRUE(gunzip_exact(good(), out).ok());
  return out;
}
template <class T>
std::vector<std::byte> with(std::vector<std::byte> file, size_t offset, T value) {
  std::memcpy(file.data() + offset, &value, sizeof value);
  return file;
}
std::vector<std::byte> gzipped(std::span<const std::byte> data) {
  std::vector<std::byte> out;
  EXPECT_TRUE(gzip_parallel(data, 6, pool(), [&](std::span<const std::byte> b) {
                out.insert(out.end(), b.begin(), b.end());
                return Status();
              }).ok());
  return out;
}

TEST(Nifti, ReadsWhatTheReferenceReads) {
  std::ifstream manifest(kGoldens + "manifest.txt");
  ASSERT_TRUE(manifest) << kGoldens;
  std::string line;
  int reads = 0, narrow = 0, refusals = 0;
  while (std::getline(manifest, line)) {
    SCOPED_TRACE(line);
    std::istringstream in(line);
    std::string verb, file, reader;
    in >> verb >> file >> reader;
    const auto kind = find_reader_kind(reader);
    ASSERT_TRUE(kind.has_value());
    const auto scan = read_nifti(kGoldens + file, *kind, {}, pool());
    if (verb == "refuse") {
      // ITK cannot read NIfTI-2; Isoline can, and the nibabel lines of the same file say with what result.
      if (file.rfind("version2", 0) == 0) continue;
      ++refusals;
      ASSERT_FALSE(scan.ok());
      EXPECT_EQ(scan.error().code, file == "offset_0.nii" ? ErrorCode::kCorrupt : ErrorCode::kUnsupported)
          << scan.error().to_string();
      continue;
    }
    if (verb != "read") continue;
    ++reads;
    ASSERT_TRUE(scan.ok()) << scan.error().to_string();
    const Image& image = scan->image;
    std::string array_file, frame;
    std::array<double, 3> spacing;
    in >> array_file >> spacing[0] >> spacing[1] >> spacing[2] >> frame;
    const auto array = read_npy(kGoldens + array_file);
    ASSERT_TRUE(array.ok()) << array.error().to_string();
    const std::vector<int64_t> shape{image.channels, image.shape[0], image.shape[1], image.shape[2]};
    EXPECT_EQ(array->shape, shape);
    const std::vector<float> got = as_float(image);
    ASSERT_NE(array->as<float>(), nullptr);
    ASSERT_EQ(array->as<float>()->size(), got.size());
    for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], (*array->as<float>())[i]) << "voxel " << i;
    narrow += std::holds_alternative<Buffer<int16_t>>(image.data);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(image.geometry.spacing_mm[i], spacing[i]);
    if (frame != "sitk") continue;
    for (size_t i = 0; i < 3; ++i) {
      double v;
      in >> v;
      EXPECT_NEAR(image.geometry.origin_mm[i], v, 1e-9 * std::max(1.0, std::abs(v)));
    }
    for (size_t i = 0; i < 9; ++i) {
      double v;
      in >> v;
      EXPECT_NEAR(image.geometry.direction[i / 3][i % 3], v, 1e-12);
    }
    ASSERT_TRUE(in);
  }
  EXPECT_GT(reads, 150);
  EXPECT_GT(narrow, 100);
  EXPECT_GT(refusals, 10);
}

TEST(Nifti, WritesTheReferencesHeaderAndVoxels) {
  std::ifstream manifest(kGoldens + "manifest.txt");
  const Folder folder;
  std::string line;
  int writes = 0;
  while (std::getline(manifest, line)) {
    std::istringstream in(line);
    std::string verb, file, reader, expected_file;
    in >> verb >> file >> reader >> expected_file;
    if (verb != "write") continue;
    SCOPED_TRACE(line);
    ++writes;
    const auto kind = find_reader_kind(reader);
    const auto scan = read_nifti(kGoldens + file, *kind, {}, pool());
    ASSERT_TRUE(scan.ok()) << scan.error().to_string();
    ASSERT_TRUE(write_labels(folder / "out.nii", labels_of(*scan), scan->source, pool()).ok());
    const auto got = bytes_of(folder / "out.nii"), want = bytes_of(kGoldens + expected_file);
    ASSERT_EQ(got.size(), want.size());
    // SimpleITK's header to the bit. nibabel's quaternion comes from an eigenvector of free sign when the
    // rotation is half a turn; its qform_code is 0, so nobody reads it.
    const auto field = [](const std::vector<std::byte>& b, size_t at) {
      float v;
      std::memcpy(&v, b.data() + at, 4);
      return v;
    };
    for (size_t i = 0; i < got.size(); ++i) {
      if (i >= 256 && i < 268 && reader.rfind("Nibabel", 0) == 0) continue;
      if (i >= 256 && i < 344) {  // floats: equal numbers, so that -0 is 0
        ASSERT_EQ(field(got, i / 4 * 4), field(want, i / 4 * 4)) << "header byte " << i;
        continue;
      }
      ASSERT_EQ(got[i], want[i]) << "byte " << i;
    }
  }
  EXPECT_GT(writes, 60);
}

TEST(Nifti, CompressedLabelsComeBack) {
  const Folder folder;
  const auto scan = read_nifti(kGoldens + "placed_3.nii", ReaderKind::kNibabelReorient, {}, pool());
  ASSERT_TRUE(scan.ok());
  LabelMap labels = labels_of(*scan);
  labels.at(1, 2, 3) = 300;
  ASSERT_TRUE(write_labels(folder / "out.nii.gz", labels, scan->source, pool()).ok());
  const auto back = read_labels(folder / "out.nii.gz", ReaderKind::kNibabelReorient, {}, pool());
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  ASSERT_EQ(back->shape, labels.shape);
  EXPECT_TRUE(std::equal(labels.data.begin(), labels.data.end(), back->data.begin()));
  EXPECT_EQ(folder.entries(), 1u);
}

// Around the largest labels that decide between one and two bytes, over several chunks of the encoder.
TEST(Nifti, CountsTheLabelsThatItWrites) {
  const Folder folder;
  const Shape3 shape{40, 180, 210};
  for (ReaderKind kind : {ReaderKind::kSimpleItk, ReaderKind::kSimpleItkReorient})
    for (int top : {3, 254, 255, 256, 300, 65535})
      for (const char* name : {"l.nii", "l.nii.gz"}) {
        LabelMap labels(shape, {});
        std::vector<int64_t> expected(size_t(top) + 1, 0);
        uint32_t random = 1;
        for (size_t i = 0, run = 0; i < labels.data.size(); ++i) {
          if (run == 0) random = random * 1664525 + 1013904223;
          if (run == 0) run = random >> 16 & 63;  // runs of 1 to 64
          const bool first = i == 0, late = i + 1 == labels.data.size();
          labels.data[i] = first ? uint16_t(0) : late ? uint16_t(top) : uint16_t((random >> 24) % 3);
          ++expected[labels.data[i]];
          if (run > 0) --run;
        }
        NiftiSource source = source_from({}, shape);
        source.kind = kind;
        std::vector<int64_t> counts{7};
        ASSERT_TRUE(write_labels(folder / name, labels, source, pool(), &counts).ok());
        EXPECT_EQ(counts, expected) << top;
        const auto back = read_labels(folder / name, ReaderKind::kSimpleItk, {}, pool());
        ASSERT_TRUE(back.ok());
        EXPECT_TRUE(std::equal(back->data.begin(), back->data.end(), labels.data.begin())) << top;
        if (std::string(name) == "l.nii") {
          const size_t voxel_bytes = top < (kind == ReaderKind::kSimpleItk ? 255 : 256) ? 1 : 2;
          EXPECT_EQ(fs::file_size(folder / name), 352 + voxel_bytes * labels.data.size()) << top;
        }
      }
}

TEST(Nifti, ImageRoundTripThroughAMadeUpGeometry) {
  const Folder folder;
  Image image;
  image.channels = 1;
  image.shape = {3, 4, 5};
  image.geometry.spacing_mm = {2.5, 0.75, 0.5};
  image.geometry.origin_mm = {-10, 20.5, 30};
  image.geometry.direction = {{{0, -1, 0}, {1, 0, 0}, {0, 0, 1}}};
  Buffer<float> values(60);
  for (size_t i = 0; i < 60; ++i) values[i] = float(i) * 0.25f - 3;
  image.data = std::move(values);
  ASSERT_TRUE(write_image(folder / "a.nii.gz", image, source_from(image.geometry, image.shape), pool()).ok());
  const auto back = read_nifti(folder / "a.nii.gz", ReaderKind::kSimpleItk, {}, pool());
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(as_float(back->image), as_float(image));
  EXPECT_EQ(back->image.geometry.spacing_mm, image.geometry.spacing_mm);
  EXPECT_EQ(back->image.geometry.origin_mm, image.geometry.origin_mm);
  EXPECT_EQ(back->image.geometry.direction, image.geometry.direction);
}

// Larger than the pages, grains and chunks inside, in every way a voxel can travel.
TEST(Nifti, LargeFilesOfEveryPath) {
  const Folder folder;
  const Shape3 shape{67, 211, 223};
  Image image;
  image.channels = 1;
  image.shape = shape;
  Buffer<int16_t> values(size_t(voxels(shape)));
  uint32_t state = 1;
  for (auto& v : values) v = int16_t((state = state * 1664525u + 1013904223u) >> 20);
  const std::vector<int16_t> want(values.begin(), values.end());
  image.data = std::move(values);
  const NiftiSource source = source_from(image.geometry, shape);
  for (const char* name : {"a.nii", "a.nii.gz"}) {
    ASSERT_TRUE(write_image(folder / name, image, source, pool()).ok());
    const auto back = read_nifti(folder / name, ReaderKind::kNibabel, {}, pool());
    ASSERT_TRUE(back.ok()) << back.error().to_string();
    const auto& got = std::get<Buffer<int16_t>>(back->image.data);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin(), got.end())) << name;
  }
  // Big-endian on the way in, and a gzip stream cut into members of 100 000 bytes.
  std::vector<std::byte> file = bytes_of(folder / "a.nii");
  std::vector<std::byte> swapped = file;
  for (size_t i = 352; i < file.size(); i += 2) std::swap(swapped[i], swapped[i + 1]);
  const auto reverse = [&](size_t offset, size_t bytes) {
    std::reverse(swapped.begin() + long(offset), swapped.begin() + long(offset + bytes));
  };
  reverse(0, 4);
  for (size_t o = 40; o < 56; o += 2) reverse(o, 2);
  for (size_t o : {size_t{68}, size_t{70}, size_t{72}, size_t{252}, size_t{254}}) reverse(o, 2);
  for (size_t o = 76; o < 120; o += 4) reverse(o, 4);
  for (size_t o = 256; o < 328; o += 4) reverse(o, 4);
  std::vector<std::byte> members;
  for (size_t at = 0; at < swapped.size(); at += 100000) {
    const auto m = gzipped(std::span(swapped).subspan(at, std::min<size_t>(100000, swapped.size() - at)));
    members.insert(members.end(), m.begin(), m.end());
  }
  const auto back = read_nifti_bytes(members, "members", ReaderKind::kNibabel, {}, pool());
  ASSERT_TRUE(back.ok()) << back.error().to_string();
  const auto& got = std::get<Buffer<int16_t>>(back->image.data);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin(), got.end()));
}

TEST(Nifti, ChannelsOfACase) {
  const std::string a = kGoldens + "i2_le.nii", b = kGoldens + "f4_le.nii", c = kGoldens + "u1_le.nii";
  for (const auto& order : {std::vector<std::string>{a, b, c}, {c, a}, {b, a, c}}) {
    const auto scan = read_case(order, ReaderKind::kSimpleItk, {}, pool());
    ASSERT_TRUE(scan.ok()) << scan.error().to_string();
    EXPECT_EQ(scan->image.channels, int64_t(order.size()));
    const std::vector<float> all = as_float(scan->image);
    for (size_t i = 0; i < order.size(); ++i) {
      const auto one = read_nifti(order[i], ReaderKind::kSimpleItk, {}, pool());
      const std::vector<float> v = as_float(one->image);
      EXPECT_TRUE(std::equal(v.begin(), v.end(), all.begin() + long(i * v.size()))) << order[i];
    }
  }
  const auto shapes = read_case({a, kGoldens + "top_label_254.nii"}, ReaderKind::kSimpleItk, {}, pool());
  ASSERT_FALSE(shapes.ok());
  EXPECT_HAS(shapes.error().to_string(), "1x2x3x4");
  EXPECT_HAS(shapes.error().to_string(), "i2_le.nii");
  const auto moved = read_case({a, kGoldens + "placed_0.nii"}, ReaderKind::kSimpleItk, {}, pool());
  ASSERT_TRUE(moved.ok());
  EXPECT_EQ(moved->warnings.size(), 2u);
}

TEST(Nifti, HostileHeaders) {
  const auto f = good_plain();
  EXPECT_HAS(error_of({f.data(), size_t{0}}), "0 bytes");
  EXPECT_HAS(error_of({f.data(), size_t{100}}), "348");
  EXPECT_HAS(error_of({f.data(), f.size() - 1}), "promises 472 bytes");
  EXPECT_HAS(error_of(with(f, 0, int32_t{349})), "sizeof_hdr");
  EXPECT_HAS(error_of(with(f, 0, int32_t{0x5c010000})), "dim[0]");  // byte order claimed, not used
  EXPECT_HAS(error_of(with(f, 344, uint32_t{0})), "magic");
  EXPECT_HAS(error_of(with(f, 345, 'i'), ReaderKind::kSimpleItk, ErrorCode::kUnsupported), ".hdr/.img");
  EXPECT_HAS(error_of(with(f, 42, int16_t{0})), "dim[1]");
  EXPECT_HAS(error_of(with(f, 44, int16_t{-3})), "dim[2]");
  EXPECT_HAS(error_of(with(f, 40, int16_t{8})), "dim[0]");
  EXPECT_HAS(error_of(with(f, 80, 0.0f)), "pixdim[1]");
  EXPECT_HAS(error_of(with(f, 88, std::nanf(""))), "pixdim[3]");
  EXPECT_HAS(error_of(with(f, 108, -1.0f)), "vox_offset");
  EXPECT_HAS(error_of(with(f, 108, 1e30f)), "vox_offset");
  EXPECT_HAS(error_of(with(f, 108, 300.0f), ReaderKind::kNibabel), "vox_offset");
  EXPECT_HAS(error_of(with(f, 70, int16_t{7})), "datatype");
  EXPECT_HAS(error_of(with(f, 70, int16_t{32}), ReaderKind::kSimpleItk, ErrorCode::kUnsupported),
             "complex64");
  EXPECT_HAS(error_of(with(f, 70, int16_t{128}), ReaderKind::kNibabel, ErrorCode::kUnsupported), "RGB24");
  // Seven axes of 32767: the product overflows 64 bits.
  auto huge = with(f, 40, int16_t{7});
  for (size_t i = 1; i < 8; ++i) huge = with(huge, 40 + 2 * i, int16_t{32767});
  EXPECT_HAS(error_of(huge), "larger than any computer's memory");
  // 35 GB promised by a file of 472 bytes: refused before a byte is allocated, compressed or not.
  auto big = f;
  for (size_t i = 1; i < 4; ++i) big = with(big, 40 + 2 * i, int16_t{2600});
  const uint64_t before = peak_rss_bytes();
  EXPECT_HAS(error_of(big), "truncated");
  EXPECT_HAS(error_of(gzipped(big)), "cannot hold that many");
  EXPECT_LT(peak_rss_bytes(), before + (16 << 20));
  ReadLimits small;
  small.max_bytes = 300;
  EXPECT_HAS(error_of(good(), ReaderKind::kSimpleItk, ErrorCode::kResourceExhausted, small), "limit of 300");
  // A quaternion longer than 1 is an error to nibabel, half a turn to ITK.
  const auto turned = with(with(with(f, 252, int16_t{1}), 254, int16_t{0}), 256, 2.0f);
  EXPECT_HAS(error_of(turned, ReaderKind::kNibabel), "quatern");
  EXPECT_EQ(error_of(turned), "no error");
}

TEST(Nifti, DamagedGzip) {
  const auto gz = good();
  EXPECT_HAS(error_of({gz.data(), gz.size() - 1}), "ends in the middle");
  EXPECT_HAS(error_of({gz.data(), gz.size() - 12}), "gzip");
  EXPECT_HAS(error_of({gz.data(), size_t{20}}), "NIfTI header");
  auto flipped = gz;
  flipped[gz.size() - 6] ^= std::byte{1};  // in the checksum
  EXPECT_HAS(error_of(flipped), "incorrect data check");
  auto garbage = gz;
  garbage.insert(garbage.end(), {std::byte{'x'}, std::byte{'y'}});
  EXPECT_HAS(error_of(garbage), "garbage");
  // Any single flipped bit: an error, or (the gzip header's free fields, another spelling of the same bytes)
  // the same image.
  const std::vector<float> want =
      as_float(read_nifti_bytes(gz, "a", ReaderKind::kSimpleItk, {}, pool())->image);
  int refused = 0;
  for (size_t i = 0; i < gz.size(); ++i) {
    auto damaged = gz;
    damaged[i] ^= std::byte{0x40};
    const auto scan = read_nifti_bytes(damaged, "in memory", ReaderKind::kSimpleItk, {}, pool());
    if (scan.ok()) {
      EXPECT_EQ(as_float(scan->image), want) << i;
    } else {
      ++refused;
    }
  }
  EXPECT_GT(refused, int(gz.size()) - 16);
}

TEST(Nifti, CheckedWithoutItsVoxels) {
  const Folder folder;
  Image image;
  image.channels = 1;
  image.shape = {5, 20, 30};
  image.data = Buffer<int16_t>(3000);
  for (size_t i = 0; i < 3000; ++i) std::get<Buffer<int16_t>>(image.data)[i] = int16_t(i * 7919);
  const NiftiSource source = source_from(image.geometry, image.shape);
  const std::string plain = folder / "a.nii", gz = folder / "a.nii.gz", other = folder / "b";
  ASSERT_TRUE(write_image(plain, image, source, pool()).ok());
  ASSERT_TRUE(write_image(gz, image, source, pool()).ok());
  constexpr uint64_t kContent = 352 + 6000;
  const auto check = [&](const std::string& path, uint64_t most = 1 << 20) {
    return check_nifti(path, ReaderKind::kSimpleItk, most);
  };
  for (const std::string& path : {plain, gz}) {
    const auto summary = check(path);
    ASSERT_TRUE(summary.ok()) << summary.error().to_string();
    EXPECT_EQ(summary->channels, 1);
    EXPECT_EQ(summary->file_shape, (Shape3{5, 20, 30}));
    EXPECT_EQ(summary->content_bytes, kContent);
    EXPECT_TRUE(check(path, kContent).ok());
    EXPECT_EQ(check(path, kContent - 1).error().code, ErrorCode::kResourceExhausted);
    // Cut anywhere: never taken for whole.
    const std::vector<std::byte> whole = bytes_of(path);
    for (size_t n : {size_t{0}, size_t{1}, size_t{17}, size_t{400}, whole.size() / 2, whole.size() - 1}) {
      ASSERT_TRUE(write_file_atomically(other, std::span(whole).first(n)).ok());
      const auto cut = check(other);
      ASSERT_FALSE(cut.ok()) << path << " " << n;
      EXPECT_EQ(cut.error().code, ErrorCode::kCorrupt) << cut.error().to_string();
    }
  }
  // Two members and zero padding are as good as one; garbage behind them is not.
  const std::vector<std::byte> content = bytes_of(plain);
  std::vector<std::byte> members;
  const ByteSink append = [&](std::span<const std::byte> b) {
    members.insert(members.end(), b.begin(), b.end());
    return Status();
  };
  ASSERT_TRUE(gzip_parallel(std::span(content).first(1000), 1, pool(), append).ok());
  ASSERT_TRUE(gzip_parallel(std::span(content).subspan(1000), 1, pool(), append).ok());
  members.resize(members.size() + 300000);
  ASSERT_TRUE(write_file_atomically(other, members).ok());
  EXPECT_TRUE(check(other).ok());
  members.back() = std::byte{1};
  ASSERT_TRUE(write_file_atomically(other, members).ok());
  EXPECT_EQ(check(other).error().code, ErrorCode::kCorrupt);
  // A stream that inflates to far more than its header promises is not inflated to its end.
  std::vector<std::byte> bomb(content);
  bomb.resize(64 << 20);
  members.clear();
  ASSERT_TRUE(gzip_parallel(bomb, 6, pool(), append).ok());
  ASSERT_TRUE(write_file_atomically(other, members).ok());
  EXPECT_EQ(check(other).error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(check(folder / "absent").error().code, ErrorCode::kNotFound);
}

TEST(Nifti, NonFiniteVoxels) {
  auto f = with(with(bytes_of(kGoldens + "f4_le.nii"), 112, 1.0f), 116, 0.0f);
  f = with(f, 352 + 4 * (1 + 5 * (2 + 4 * 1)), std::numeric_limits<float>::infinity());
  f = with(f, 352 + 4 * (2 + 5 * (2 + 4 * 1)), std::nanf(""));
  for (ReaderKind kind : {ReaderKind::kSimpleItk, ReaderKind::kNibabelReorient})
    EXPECT_HAS(error_of(f, kind), "voxel x=1 y=2 z=1 is NaN or infinite");
  ReadLimits allow;
  allow.allow_nonfinite = true;
  const auto itk = read_nifti_bytes(f, "a", ReaderKind::kSimpleItk, allow, pool());
  const auto nib = read_nifti_bytes(f, "a", ReaderKind::kNibabel, allow, pool());
  ASSERT_TRUE(itk.ok() && nib.ok());
  EXPECT_EQ(std::get<Buffer<float>>(itk->image.data)[31], 0.0f);
  EXPECT_TRUE(std::isinf(std::get<Buffer<float>>(nib->image.data)[31]));
  EXPECT_TRUE(std::isnan(std::get<Buffer<float>>(nib->image.data)[32]));
  // Finite in the file, infinite as float32.
  auto wide = bytes_of(kGoldens + "f8_le.nii");
  wide = with(wide, 352 + 8 * 7, 1e200);
  EXPECT_HAS(error_of(wide), "voxel x=2 y=1 z=0 is NaN or infinite");
}

TEST(Nifti, WhatIsNoFile) {
  const Folder folder;
  const auto code = [&](const std::string& path) {
    const auto scan = read_nifti(path, ReaderKind::kSimpleItk, {}, pool());
    EXPECT_FALSE(scan.ok());
    EXPECT_HAS(scan.error().to_string(), path);
    return scan.error().code;
  };
  EXPECT_EQ(code(folder / "missing.nii.gz"), ErrorCode::kNotFound);
  EXPECT_EQ(code(folder / "."), ErrorCode::kInvalidArgument);
  ASSERT_EQ(::mkfifo((folder / "pipe.nii").c_str(), 0600), 0);
  EXPECT_EQ(code(folder / "pipe.nii"), ErrorCode::kInvalidArgument);
  std::ofstream(folder / "empty.nii").flush();
  EXPECT_EQ(code(folder / "empty.nii"), ErrorCode::kCorrupt);
  std::ofstream(folder / "text.nii") << std::string(1000, 'x');
  EXPECT_EQ(code(folder / "text.nii"), ErrorCode::kCorrupt);
}

TEST(Nifti, NotLabels) {
  const auto fraction = read_labels(kGoldens + "f4_le.nii", ReaderKind::kSimpleItk, {}, pool());
  ASSERT_FALSE(fraction.ok());
  EXPECT_HAS(fraction.error().to_string(), "not a label");
  EXPECT_HAS(fraction.error().to_string(), "x=0 y=0 z=0");
  EXPECT_FALSE(read_labels(kGoldens + "axes_5x4x3x2_0.nii", ReaderKind::kSimpleItk, {}, pool()).ok());
  EXPECT_FALSE(read_labels(kGoldens + "i2_be.nii", ReaderKind::kSimpleItk, {}, pool()).ok());  // negative
  EXPECT_TRUE(read_labels(kGoldens + "top_label_300.nii", ReaderKind::kSimpleItk, {}, pool()).ok());
}

TEST(Nifti, FailedWritesLeaveNothing) {
  const Folder folder;
  const auto scan = read_nifti(kGoldens + "placed_0.nii", ReaderKind::kSimpleItk, {}, pool());
  ASSERT_TRUE(scan.ok());
  LabelMap labels = labels_of(*scan);
  EXPECT_EQ(write_labels(folder / "a.mha", labels, scan->source, pool()).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(write_labels(folder / "none/a.nii.gz", labels, scan->source, pool()).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(write_labels("/dev/full", labels, scan->source, pool()).error().code,
            ErrorCode::kInvalidArgument);
  LabelMap other(Shape3{2, 2, 2}, {});
  EXPECT_EQ(write_labels(folder / "a.nii", other, scan->source, pool()).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(folder.entries(), 0u);
  // A full disk, played by the process's own file size limit; the file that was there before stays.
  ASSERT_TRUE(write_file_atomically(folder / "a.nii", std::string("old")).ok());
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit tight = before;
  tight.rlim_cur = 400;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status full = write_labels(folder / "a.nii", labels, scan->source, pool());
  ::setrlimit(RLIMIT_FSIZE, &before);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kResourceExhausted);
  EXPECT_EQ(folder.entries(), 1u);
  EXPECT_EQ(bytes_of(folder / "a.nii").size(), 3u);
}

}  // namespace
}  // namespace isoline
