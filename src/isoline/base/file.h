// Files as this program needs them: read whole with a limit, mapped read-only, or written so that the path
// holds either what it held before or the complete new content, never a part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "isoline/base/buffer.h"
#include "isoline/base/result.h"

namespace isoline {

// An open regular file, read at offsets. Move-only; closes on destruction. Reads from several threads are
// fine.
class InputFile {
 public:
  // kNotFound if there is no such file; kInvalidArgument for anything but a regular file (a FIFO is never
  // waited for); kIo if the system refuses.
  static Result<InputFile> open(const std::string& path);
  InputFile(InputFile&& o) noexcept;
  InputFile& operator=(InputFile&& o) noexcept;
  ~InputFile();

  const std::string& path() const { return path_; }
  uint64_t byte_size() const { return byte_size_; }  // at the time of opening
  // Fills `to` from `offset`; kCorrupt if the file ends before that, kIo if the system refuses.
  Status read_at(uint64_t offset, std::span<std::byte> to) const;

 private:
  InputFile(std::string path, int fd, uint64_t byte_size);
  friend class MappedFile;
  std::string path_;
  int fd_ = -1;
  uint64_t byte_size_ = 0;
};

// The whole file in memory; kResourceExhausted if it is larger than `max_bytes` (nothing is allocated then).
Result<Buffer<std::byte>> read_whole_file(const std::string& path, uint64_t max_bytes);

// A read-only mapping of a whole regular file. If another process truncates the file while it is mapped,
// touching the lost pages ends this process (SIGBUS): use read_at() for files that may change.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& o) noexcept;
  MappedFile& operator=(MappedFile&& o) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

 private:
  MappedFile(void* data, size_t size) : data_(data), size_(size) {}
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Writes a file beside its destination and renames it over that on commit(). Destroyed without commit(), it
// removes what it wrote and leaves the destination as it was. One thread at a time.
class AtomicFile {
 public:
  // Fails at once where the destination cannot be written: kNotFound (no such folder), kIo (no permission, or
  // the destination exists and is not a regular file).
  static Result<AtomicFile> create(const std::string& path);
  AtomicFile(AtomicFile&&) noexcept;
  AtomicFile& operator=(AtomicFile&&) noexcept;
  ~AtomicFile();

  // Appends; kResourceExhausted when the disk or a quota is full, else kIo.
  Status write(std::span<const std::byte> bytes);
  // Overwrites bytes already written (headers that are known only at the end).
  Status write_at(uint64_t offset, std::span<const std::byte> bytes);
  uint64_t bytes_written() const;
  // fsync, rename over the destination, fsync of the folder. Nothing may follow.
  Status commit();

 private:
  struct State;
  explicit AtomicFile(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One call for small contents: create, write, commit.
Status write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
Status write_file_atomically(const std::string& path, const std::string& text);

// Unlinks the temporary files of every AtomicFile now open in this process. Async-signal-safe: meant for a
// handler.
void remove_pending_files() noexcept;
// Makes SIGINT, SIGTERM and SIGHUP remove the pending files and then end the process as the signal does by
// default. A program calls it once at its start; a library never should.
void install_interrupt_cleanup();

}  // namespace isoline
