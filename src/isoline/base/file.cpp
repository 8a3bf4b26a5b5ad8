#include "isoline/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <utility>

namespace isoline {
namespace {

Error system_error(int number, const std::string& path, const std::string& what) {
  Error e;
  e.context = path;
  e.message = what + ": " + std::strerror(number);
  switch (number) {
    case ENOENT:
    case ENOTDIR:
      e.code = ErrorCode::kNotFound;
      break;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      e.code = ErrorCode::kResourceExhausted;
      e.remedy = "Free space or write elsewhere";
      break;
    default:
      e.code = ErrorCode::kIo;
      break;
  }
  return e;
}

// --- Registry of temporary files
// --------------------------------------------------------------------------------- Fixed storage and
// lock-free flags, so that a signal handler may walk it at any moment.
constexpr int kMaxPending = 64;
constexpr size_t kMaxPathBytes = 4096;
enum SlotState : int { kFree, kClaimed, kPending };
struct Slot {
  std::atomic<int> state{kFree};
  char path[kMaxPathBytes];
};
Slot g_pending[kMaxPending];
static_assert(std::atomic<int>::is_always_lock_free);

// Index of the slot that now guards `path`, or -1 (more files open than slots, or a path too long): such a
// file is still removed by its owner's destructor, only not by a signal.
int register_pending(const std::string& path) {
  if (path.size() + 1 > kMaxPathBytes) return -1;
  for (int i = 0; i < kMaxPending; ++i) {
    int expected = kFree;
    if (!g_pending[i].state.compare_exchange_strong(expected, kClaimed)) continue;
    std::memcpy(g_pending[i].path, path.c_str(), path.size() + 1);
    g_pending[i].state.store(kPending, std::memory_order_release);
    return i;
  }
  return -1;
}
void unregister_pending(int slot) {
  if (slot >= 0) g_pending[slot].state.store(kFree, std::memory_order_release);
}

extern "C" void isoline_on_interrupt(int signal_number) {
  const int saved_errno = errno;
  remove_pending_files();
  errno = saved_errno;
  std::signal(signal_number, SIG_DFL);
  std::raise(signal_number);
}

Status write_all(int fd, const std::string& path, uint64_t offset, std::span<const std::byte> bytes) {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t n = std::min<size_t>(bytes.size() - done, size_t{1} << 30);
    const ssize_t r = ::pwrite(fd, bytes.data() + done, n, off_t(offset + done));
    if (r < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, path, "cannot write");
    }
    done += size_t(r);
  }
  return {};
}

std::string folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

// --- InputFile
// ---------------------------------------------------------------------------------------------------
InputFile::InputFile(std::string path, int fd, uint64_t byte_size)
    : path_(std::move(path)), fd_(fd), byte_size_(byte_size) {}
InputFile::InputFile(InputFile&& o) noexcept
    : path_(std::move(o.path_)), fd_(std::exchange(o.fd_, -1)), byte_size_(o.byte_size_) {}
InputFile& InputFile::operator=(InputFile&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(byte_size_, o.byte_size_);
  return *this;
}
InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<InputFile> InputFile::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it changes nothing for regular files.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error(errno, path, "cannot open");
  InputFile file(path, fd, 0);
  struct stat st;
  if (::fstat(fd, &st) != 0) return system_error(errno, path, "cannot stat");
  if (!S_ISREG(st.st_mode))
    return Error{ErrorCode::kInvalidArgument,
                 S_ISDIR(st.st_mode) ? "is a folder, not a file" : "is not a regular file", path, ""};
  file.byte_size_ = uint64_t(st.st_size);
  return file;
}

Status InputFile::read_at(uint64_t offset, std::span<std::byte> to) const {
  size_t done = 0;
  while (done < to.size()) {
    const size_t n = std::min<size_t>(to.size() - done, size_t{1} << 30);
    const ssize_t r = ::pread(fd_, to.data() + done, n, off_t(offset + done));
    if (r < 0) {
      if (errno == EINTR) continue;
      return system_error(errno, path_, "cannot read");
    }
    if (r == 0)
      return Error{ErrorCode::kCorrupt,
                   "the file ends at byte " + std::to_string(offset + done) + ", " +
                       std::to_string(to.size() - done) + " bytes too early",
                   path_, ""};
    done += size_t(r);
  }
  return {};
}

Result<Buffer<std::byte>> read_whole_file(const std::string& path, uint64_t max_bytes) {
  ISOLINE_ASSIGN(InputFile file, InputFile::open(path));
  if (file.byte_size() > max_bytes)
    return Error{ErrorCode::kResourceExhausted,
                 "the file has " + std::to_string(file.byte_size()) + " bytes, more than the limit of " +
                     std::to_string(max_bytes),
                 path, ""};
  Buffer<std::byte> bytes(size_t(file.byte_size()));
  ISOLINE_RETURN_IF_ERROR(file.read_at(0, bytes.span()));
  return bytes;
}

// --- MappedFile
// --------------------------------------------------------------------------------------------------
Result<MappedFile> MappedFile::open(const std::string& path) {
  ISOLINE_ASSIGN(InputFile file, InputFile::open(path));
  if (file.byte_size() == 0) return MappedFile(nullptr, 0);
  void* p = ::mmap(nullptr, size_t(file.byte_size()), PROT_READ, MAP_PRIVATE, file.fd_, 0);
  if (p == MAP_FAILED) return system_error(errno, path, "cannot map");
  return MappedFile(p, size_t(file.byte_size()));
}
MappedFile::MappedFile(MappedFile&& o) noexcept
    : data_(std::exchange(o.data_, nullptr)), size_(std::exchange(o.size_, 0)) {}
MappedFile& MappedFile::operator=(MappedFile&& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  return *this;
}
MappedFile::~MappedFile() {
  if (data_) ::munmap(data_, size_);
}

// --- AtomicFile
// --------------------------------------------------------------------------------------------------
struct AtomicFile::State {
  std::string path, temporary;
  int fd = -1;
  int slot = -1;
  uint64_t written = 0;

  ~State() {
    if (fd >= 0) ::close(fd);
    if (!temporary.empty()) ::unlink(temporary.c_str());
    unregister_pending(slot);
  }
};

AtomicFile::AtomicFile(std::unique_ptr<State> state) : state_(std::move(state)) {}
AtomicFile::AtomicFile(AtomicFile&&) noexcept = default;
AtomicFile& AtomicFile::operator=(AtomicFile&&) noexcept = default;
AtomicFile::~AtomicFile() = default;

Result<AtomicFile> AtomicFile::create(const std::string& path) {
  static std::atomic<unsigned> counter{0};
  struct stat st;
  // A device or FIFO is refused too: renaming over it would replace it (think of /dev/null and root).
  if (::stat(path.c_str(), &st) == 0 && !S_ISREG(st.st_mode))
    return Error{
        ErrorCode::kIo,
        S_ISDIR(st.st_mode) ? "cannot write: it is a folder" : "cannot write: it is not a regular file", path,
        "Name a file"};
  // The leading dot keeps folder scans for "*.nii.gz" from picking up an unfinished file.
  const size_t slash = path.find_last_of('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string prefix = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  if (name.empty()) return Error{ErrorCode::kInvalidArgument, "the output path names no file", path, ""};
  for (int attempt = 0; attempt < 100; ++attempt) {
    auto state = std::make_unique<State>();
    state->path = path;
    // 200 bytes of the name keep the temporary's within the usual limit of 255.
    const std::string temporary = prefix + "." + name.substr(0, 200) + ".tmp-" + std::to_string(::getpid()) +
                                  "-" + std::to_string(counter.fetch_add(1));
    // Registered before it exists: a signal between open() and registration would leave it behind.
    state->slot = register_pending(temporary);
    state->fd = ::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (state->fd < 0) {
      if (errno == EEXIST) continue;  // left by a dead process of the same id; not ours to remove
      return system_error(errno, path, "cannot create");
    }
    state->temporary = temporary;
    return AtomicFile(std::move(state));
  }
  return Error{ErrorCode::kIo, "cannot create a temporary file beside it", path, ""};
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  ISOLINE_RETURN_IF_ERROR(write_all(state_->fd, state_->path, state_->written, bytes));
  state_->written += bytes.size();
  return {};
}

Status AtomicFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  return write_all(state_->fd, state_->path, offset, bytes);
}

uint64_t AtomicFile::bytes_written() const {
  return state_->written;
}

Status AtomicFile::commit() {
  State& s = *state_;
  if (::fsync(s.fd) != 0 && errno != EINVAL && errno != EROFS)
    return system_error(errno, s.path, "cannot write");
  const int fd = std::exchange(s.fd, -1);
  if (::close(fd) != 0 && errno != EINTR) return system_error(errno, s.path, "cannot write");
  if (::rename(s.temporary.c_str(), s.path.c_str()) != 0) return system_error(errno, s.path, "cannot write");
  s.temporary.clear();
  unregister_pending(std::exchange(s.slot, -1));
  // The data is safe by now; where a folder cannot be synced the rename may only be lost with the machine.
  const int folder = ::open(folder_of(s.path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
  return {};
}

Status write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  ISOLINE_ASSIGN(AtomicFile file, AtomicFile::create(path));
  ISOLINE_RETURN_IF_ERROR(file.write(bytes));
  return file.commit();
}

Status write_file_atomically(const std::string& path, const std::string& text) {
  return write_file_atomically(path, std::as_bytes(std::span<const char>(text.data(), text.size())));
}

void remove_pending_files() noexcept {
  for (Slot& slot : g_pending)
    if (slot.state.load(std::memory_order_acquire) == kPending) ::unlink(slot.path);
}

void install_interrupt_cleanup() {
  struct sigaction action {};
  action.sa_handler = isoline_on_interrupt;
  sigemptyset(&action.sa_mask);
  for (int s : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction old {};
    // A signal the parent chose to ignore (nohup) stays ignored.
    if (::sigaction(s, nullptr, &old) == 0 && old.sa_handler == SIG_IGN) continue;
    ::sigaction(s, &action, nullptr);
  }
}

}  // namespace isoline
