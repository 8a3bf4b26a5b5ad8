// ReaderKind: whose conventions a scan is read and its labels are written with.
#pragma once

namespace isoline {

// nnunetv2/imageio/*: the reader a model was trained with. The `Reorient` kinds turn the array to RAS on
// reading and back on writing.
enum class ReaderKind { kSimpleItk, kSimpleItkReorient, kNibabel, kNibabelReorient };

}  // namespace isoline
