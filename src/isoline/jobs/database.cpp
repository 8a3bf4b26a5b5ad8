#include "isoline/jobs/database.h"

#include <sqlite3.h>

namespace isoline::jobs {
namespace {

ErrorCode code_of(int primary) {
  switch (primary) {
    case SQLITE_FULL:
    case SQLITE_NOMEM:
      return ErrorCode::kResourceExhausted;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::kCorrupt;
    case SQLITE_READONLY:
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return ErrorCode::kIo;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

void Database::Close::operator()(sqlite3* handle) const {
  sqlite3_close_v2(handle);
}

Result<Database> Database::open(const std::string& file) {
  sqlite3* handle = nullptr;
  const int opened = sqlite3_open_v2(
      file.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(file, handle);
  if (opened != SQLITE_OK) return database.error("cannot open");
  sqlite3_busy_timeout(handle, 5000);
  ISOLINE_RETURN_IF_ERROR(database.run("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
  return database;
}

Status Database::run(const std::string& sql) {
  if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK) return {};
  return error("cannot be used");
}

Error Database::error(const std::string& doing) const {
  const int extended = handle_ ? sqlite3_extended_errcode(handle_.get()) : SQLITE_NOMEM;
  const ErrorCode code = code_of(extended & 0xff);
  return {code, doing + ": " + (handle_ ? sqlite3_errmsg(handle_.get()) : "no memory"), file_,
          code == ErrorCode::kCorrupt ? "Move it away, or choose another --state folder." : ""};
}

int64_t Database::changes() const {
  return sqlite3_changes(handle_.get());
}

Statement::Statement(Database& database, const char* sql) : database_(database) {
  failed_ = sqlite3_prepare_v2(database.get(), sql, -1, &statement_, nullptr) != SQLITE_OK;
}

Statement::~Statement() {
  sqlite3_finalize(statement_);
}

Statement& Statement::bind(int64_t value) {
  failed_ = failed_ || sqlite3_bind_int64(statement_, ++bound_, value) != SQLITE_OK;
  return *this;
}
Statement& Statement::bind(double value) {
  failed_ = failed_ || sqlite3_bind_double(statement_, ++bound_, value) != SQLITE_OK;
  return *this;
}
Statement& Statement::bind(const std::string& value) {
  failed_ = failed_ || sqlite3_bind_text(statement_, ++bound_, value.data(), int(value.size()),
                                         SQLITE_TRANSIENT) != SQLITE_OK;
  return *this;
}

Result<bool> Statement::step() {
  if (failed_) return database_.error("cannot be asked");
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_.error("cannot be written or read");
}

Status Statement::finish() {
  const Result<bool> row = step();
  if (!row.ok()) return row.error();
  return {};
}

int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_, column);
}
double Statement::real(int column) const {
  return sqlite3_column_double(statement_, column);
}
std::string Statement::text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  return text ? std::string(text, size_t(sqlite3_column_bytes(statement_, column))) : std::string();
}

}  // namespace isoline::jobs
