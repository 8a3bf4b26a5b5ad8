// The few lines of SQLite that a store needs. Internal to the room. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "isoline/base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace isoline::jobs {

// kResourceExhausted: the disk is full; kIo: it cannot be written (read-only, for one); kCorrupt: it is no
// database.
class Database {
 public:
  // Write-ahead log, every commit on disk before it returns.
  static Result<Database> open(const std::string& file);
  Database(Database&&) noexcept = default;
  Database& operator=(Database&&) noexcept = default;

  // Without results or parameters; several statements may follow each other.
  Status run(const std::string& sql);
  Error error(const std::string& doing) const;
  sqlite3* get() const { return handle_.get(); }
  // Rows that the last statement changed.
  int64_t changes() const;

 private:
  struct Close {
    void operator()(sqlite3* handle) const;
  };
  Database(std::string file, sqlite3* handle) : file_(std::move(file)), handle_(handle) {}
  std::string file_;
  std::unique_ptr<sqlite3, Close> handle_;
};

// One statement: parameters in order, then rows.
class Statement {
 public:
  Statement(Database& database, const char* sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(int64_t value);
  Statement& bind(double value);
  Statement& bind(const std::string& value);

  // Whether there is a (further) row.
  Result<bool> step();
  // For statements without rows.
  Status finish();
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;

 private:
  Database& database_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
  bool failed_ = false;
};

}  // namespace isoline::jobs
