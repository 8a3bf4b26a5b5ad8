// ReaderKind: whose conventions a scan is read and its labels are written with.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace isoline {

// nnunetv2/imageio/*: the reader a model was trained with. The `Reorient` kinds turn the array to RAS on
// reading and back on writing.
enum class ReaderKind { kSimpleItk, kSimpleItkReorient, kNibabel, kNibabelReorient };

// As plans.json and dataset.json name them.
inline constexpr std::array<std::pair<ReaderKind, const char*>, 4> kReaderNames{
    {{ReaderKind::kSimpleItk, "SimpleITKIO"},
     {ReaderKind::kSimpleItkReorient, "SimpleITKIOWithReorient"},
     {ReaderKind::kNibabel, "NibabelIO"},
     {ReaderKind::kNibabelReorient, "NibabelIOWithReorient"}}};

constexpr const char* reader_kind_name(ReaderKind kind) {
  return kReaderNames[size_t(kind)].second;
}
// Empty for the reference's other readers (natural images, TIFF) and for unknown names.
constexpr std::optional<ReaderKind> find_reader_kind(std::string_view name) {
  for (const auto& [kind, known] : kReaderNames)
    if (name == known) return kind;
  return std::nullopt;
}

}  // namespace isoline
