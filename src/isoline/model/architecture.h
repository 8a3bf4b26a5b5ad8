// A configuration's "architecture" object, or the fields of plans from before it existed -> ArchitectureSpec.
#pragma once

#include <functional>

#include "isoline/base/result.h"
#include "isoline/model/json_value.h"
#include "isoline/model/model_spec.h"

namespace isoline {

// PlainConvUNet and ResidualEncoderUNet (BasicBlockD) with the arguments dynamic_network_architectures gives
// a meaning at inference; every other class, argument or operator is kUnsupported with its name. Source:
// nnunetv2 utilities/get_network_from_plans.py, dynamic_network_architectures/architectures/unet.py.
Result<ArchitectureSpec> parse_architecture(const JsonField& architecture);

// Plans without "architecture": UNet_class_name, UNet_base_num_features, ... as
// nnunetv2 utilities/plans_handling/plans_handler.py (ConfigurationManager.__init__) converts them.
// `field(key)` looks a key up in the configuration, inheritance resolved. `spatial_dims`: length of
// patch_size.
using FieldLookup = std::function<Result<JsonField>(const char* key)>;
Result<ArchitectureSpec> parse_old_architecture(const FieldLookup& field, int spatial_dims);

}  // namespace isoline
