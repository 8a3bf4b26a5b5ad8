#include "isoline/io/nifti_geometry.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace isoline {
namespace {

// NIfTI forms hold floats, and ITK decides on them in single precision: so does this code, where it follows
// ITK.
using Float3 = std::array<std::array<float, 3>, 3>;
struct Affine3 {  // 3x4 part of a RAS affine
  Float3 m{};
  std::array<float, 3> offset{};
};

constexpr double kFarthestMm = 1e9;

float finite_or_zero(double v) {
  return std::isfinite(float(v)) ? float(v) : 0.0f;
}

// Rotation of the unit quaternion (a, b, c, d), columns scaled; NIfTI's method 2.
Affine3 qform_matrix(const NiftiHeader& h) {
  double b = finite_or_zero(h.quatern[0]), c = finite_or_zero(h.quatern[1]), d = finite_or_zero(h.quatern[2]);
  double a = double(1.0L - (b * b + c * c + d * d));
  if (a < 1e-7) {  // half a turn; make it a unit quaternion
    a = double(1.0L / std::sqrt(b * b + c * c + d * d));
    b *= a;
    c *= a;
    d *= a;
    a = 0;
  } else {
    a = std::sqrt(a);
  }
  std::array<double, 3> scale;
  for (size_t i = 0; i < 3; ++i) scale[i] = float(h.pixdim[i + 1]) > 0 ? double(float(h.pixdim[i + 1])) : 1.0;
  if (h.pixdim[0] < 0) scale[2] = -scale[2];
  const std::array<std::array<double, 3>, 3> r{{
      {a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
      {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
      {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b},
  }};
  Affine3 out;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) out.m[i][j] = float(r[i][j] * scale[j]);
    out.offset[i] = finite_or_zero(h.qoffset[i]);
  }
  return out;
}

Affine3 sform_matrix(const NiftiHeader& h) {
  Affine3 out;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) out.m[i][j] = float(h.srow[i][j]);
    out.offset[i] = float(h.srow[i][3]);
  }
  return out;
}

// Columns normalised, then M M^T within 1e-4 of the identity (single precision, as ITK).
bool is_orthonormal_but_scaled(const Affine3& a) {
  Float3 r = a.m;
  for (size_t j = 0; j < 3; ++j) {
    const float norm = std::sqrt(r[0][j] * r[0][j] + r[1][j] * r[1][j] + r[2][j] * r[2][j]);
    if (!(norm > 0) || !std::isfinite(norm) || !std::isfinite(a.offset[j])) return false;
    for (size_t i = 0; i < 3; ++i) r[i][j] /= norm;
  }
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) {
      const float dot = r[i][0] * r[j][0] + r[i][1] * r[j][1] + r[i][2] * r[j][2];
      if (std::abs(dot - (i == j ? 1.0f : 0.0f)) > 1e-4f) return false;
    }
  return true;
}

bool all_within(const Affine3& a, const Affine3& b, double matrix_tolerance, double offset_sum) {
  double sum = 0;
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j)
      if (!(std::abs(a.m[i][j] - b.m[i][j]) <= matrix_tolerance)) return false;
    sum += std::abs(a.offset[i] - b.offset[i]);
  }
  return sum <= offset_sum;
}

// Same spacing, rotation and offset, each within 1e-4.
bool very_similar(const Affine3& s, const Affine3& q) {
  for (size_t j = 0; j < 3; ++j) {
    double ns = 0, nq = 0;
    for (size_t i = 0; i < 3; ++i) ns += double(s.m[i][j]) * s.m[i][j], nq += double(q.m[i][j]) * q.m[i][j];
    ns = std::sqrt(ns);
    nq = std::sqrt(nq);
    if (!(std::abs(ns - nq) <= 1e-4) || !(std::abs(s.offset[j] - q.offset[j]) <= 1e-4f)) return false;
    for (size_t i = 0; i < 3; ++i)
      if (!(std::abs(s.m[i][j] / ns - q.m[i][j] / nq) <= 1e-4)) return false;
  }
  return true;
}

float determinant(const Float3& m) {
  double d[3][3];
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) d[i][j] = m[i][j];
  return float(d[0][0] * d[1][1] * d[2][2] - d[0][0] * d[2][1] * d[1][2] - d[1][0] * d[0][1] * d[2][2] +
               d[1][0] * d[2][1] * d[0][2] + d[2][0] * d[0][1] * d[1][2] - d[2][0] * d[1][1] * d[0][2]);
}

Float3 inverse(const Float3& m) {
  double d[3][3];
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) d[i][j] = m[i][j];
  const double det = d[0][0] * d[1][1] * d[2][2] - d[0][0] * d[2][1] * d[1][2] - d[1][0] * d[0][1] * d[2][2] +
                     d[1][0] * d[2][1] * d[0][2] + d[2][0] * d[0][1] * d[1][2] - d[2][0] * d[1][1] * d[0][2];
  const double f = det != 0 ? 1.0 / det : 0.0;
  Float3 out;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) {
      const size_t r0 = (j + 1) % 3, r1 = (j + 2) % 3, c0 = (i + 1) % 3, c1 = (i + 2) % 3;
      out[i][j] = float(f * (d[r0][c0] * d[r1][c1] - d[r0][c1] * d[r1][c0]));
    }
  return out;
}

float largest_row_sum(const Float3& m, bool of_columns) {
  float best = 0;
  for (size_t i = 0; i < 3; ++i) {
    double sum = 0;
    for (size_t j = 0; j < 3; ++j) sum += std::abs(double(of_columns ? m[j][i] : m[i][j]));
    best = std::max(best, float(sum));
  }
  return best;
}

// The closest orthogonal matrix: Higham's iteration (SIAM J. Sci. Stat. Comput. 7, 1160) in single precision,
// in the steps of nifti_clib, so that headers come out with the reference's bits.
Float3 polar_float(const Float3& a) {
  Float3 x = a, z = a;
  while (determinant(x) == 0.0f) {
    const float nudge = float(0.00001 * (0.001 + largest_row_sum(x, false)));
    for (size_t i = 0; i < 3; ++i) x[i][i] += nudge;
  }
  float change = 1.0f;
  for (int k = 0; k < 101; ++k) {
    const Float3 y = inverse(x);
    float up = 1.0f, down = 1.0f;
    if (change > 0.3) {  // far away: scale to speed up
      const float alpha = float(std::sqrt(double(largest_row_sum(x, false) * largest_row_sum(x, true))));
      const float beta = float(std::sqrt(double(largest_row_sum(y, false) * largest_row_sum(y, true))));
      up = float(std::sqrt(double(beta / alpha)));
      down = float(1.0 / up);
    }
    double sum = 0;
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j) {
        z[i][j] = float(0.5 * double(up * x[i][j] + down * y[j][i]));
        sum += std::abs(double(z[i][j] - x[i][j]));
      }
    change = float(sum);
    if (change < 3e-6) break;
    x = z;
  }
  return z;
}

// b, c, d of the unit quaternion with a >= 0 for an orthogonal matrix, and qfac (-1: its third column was
// flipped).
struct Quaternion {
  double b = 0, c = 0, d = 0, qfac = 1;
};
Quaternion quaternion_of(Matrix3 r) {
  Quaternion q;
  const double det = r[0][0] * (r[1][1] * r[2][2] - r[1][2] * r[2][1]) -
                     r[0][1] * (r[1][0] * r[2][2] - r[1][2] * r[2][0]) +
                     r[0][2] * (r[1][0] * r[2][1] - r[1][1] * r[2][0]);
  if (!(det > 0)) {
    q.qfac = -1;
    for (auto& row : r) row[2] = -row[2];
  }
  double a = r[0][0] + r[1][1] + r[2][2] + 1.0;
  if (a > 0.5) {
    a = 0.5 * std::sqrt(a);
    q.b = 0.25 * (r[2][1] - r[1][2]) / a;
    q.c = 0.25 * (r[0][2] - r[2][0]) / a;
    q.d = 0.25 * (r[1][0] - r[0][1]) / a;
    return q;
  }
  const double x = 1.0 + r[0][0] - (r[1][1] + r[2][2]);
  const double y = 1.0 + r[1][1] - (r[0][0] + r[2][2]);
  const double z = 1.0 + r[2][2] - (r[0][0] + r[1][1]);
  if (x > 1.0) {
    q.b = 0.5 * std::sqrt(x);
    q.c = 0.25 * (r[0][1] + r[1][0]) / q.b;
    q.d = 0.25 * (r[0][2] + r[2][0]) / q.b;
    a = 0.25 * (r[2][1] - r[1][2]) / q.b;
  } else if (y > 1.0) {
    q.c = 0.5 * std::sqrt(y);
    q.b = 0.25 * (r[0][1] + r[1][0]) / q.c;
    q.d = 0.25 * (r[1][2] + r[2][1]) / q.c;
    a = 0.25 * (r[0][2] - r[2][0]) / q.c;
  } else {
    q.d = 0.5 * std::sqrt(z);
    q.b = 0.25 * (r[0][2] + r[2][0]) / q.d;
    q.c = 0.25 * (r[1][2] + r[2][1]) / q.d;
    a = 0.25 * (r[1][0] - r[0][1]) / q.d;
  }
  if (a < 0) {
    q.b = -q.b;
    q.c = -q.c;
    q.d = -q.d;
  }
  return q;
}

// Closest orthogonal matrix in double precision (Newton); false for a singular or non-finite one.
bool polar(Matrix3& m) {
  for (int k = 0; k < 60; ++k) {
    const double det = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) -
                       m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0]) +
                       m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
    if (!std::isfinite(det) || std::abs(det) < 1e-12) return false;
    Matrix3 next;
    double change = 0;
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j) {
        const size_t r0 = (i + 1) % 3, r1 = (i + 2) % 3, c0 = (j + 1) % 3, c1 = (j + 2) % 3;
        const double cofactor =
            m[r0][c0] * m[r1][c1] - m[r0][c1] * m[r1][c0];  // of (i, j): inverse transposed
        next[i][j] = 0.5 * (m[i][j] + cofactor / det);
        change += std::abs(next[i][j] - m[i][j]);
      }
    m = next;
    if (change < 1e-15) break;
  }
  return true;
}

Error direction_error(const std::string& what) {
  return Error{ErrorCode::kUnsupported, what, "NIfTI header, qform/sform",
               "Resample the image onto an orthogonal grid, or set a valid qform and sform"};
}

}  // namespace

bool AxisMap::is_identity() const {
  return axis == std::array<int, 3>{0, 1, 2} && flip == std::array<bool, 3>{false, false, false};
}

AxisMap AxisMap::inverse() const {
  AxisMap out;
  for (size_t i = 0; i < 3; ++i) {
    out.axis[size_t(axis[i])] = int(i);
    out.flip[size_t(axis[i])] = flip[i];
  }
  return out;
}

Result<ItkGeometry> itk_geometry(const NiftiHeader& h, int dimensions) {
  ItkGeometry g;
  g.dimensions = dimensions;
  const double unit = h.space_units == 1 ? 1e3 : h.space_units == 3 ? 1e-3 : 1.0;
  for (size_t i = 0; i < size_t(dimensions); ++i) g.spacing_mm[i] = double(float(h.pixdim[i + 1])) * unit;

  if (h.qform_code > 0 || h.sform_code > 0) {
    const bool has_q = h.qform_code > 0, has_s = h.sform_code > 0;
    Affine3 form;
    const Affine3 s = sform_matrix(h);
    Affine3 q = qform_matrix(h);
    if (!has_q) {
      q = Affine3{};
      for (size_t i = 0; i < 3; ++i) q.m[i][i] = float(h.pixdim[i + 1]);
    }
    bool take_s = has_s && all_within(s, q, 1e-5, 1e-7);
    if (has_s && is_orthonormal_but_scaled(s)) {
      if (!has_q || h.sform_code == 1)
        take_s = true;
      else
        take_s = very_similar(s, q);
    }
    if (take_s)
      form = s;
    else if (has_q)
      form = q;
    else
      return direction_error("the image axes are not orthogonal (sheared sform and no qform)");

    // RAS to LPS negates the first two rows.
    const size_t n = size_t(dimensions);
    for (size_t i = 0; i < n; ++i) {
      const double sign = i < 2 ? -1.0 : 1.0;
      g.origin_mm[i] = sign * double(form.offset[i]) * unit;
      for (size_t j = 0; j < n; ++j) g.direction[i][j] = sign * double(form.m[i][j]);
    }
    for (size_t j = 0; j < n; ++j) {
      double sum = 0;
      for (size_t i = 0; i < n; ++i) sum += g.direction[i][j] * g.direction[i][j];
      sum = std::sqrt(sum);
      if (!(sum > 0) || !std::isfinite(sum))
        return direction_error(dimensions == 2
                                   ? "the image plane is perpendicular to the world's x-y plane, which a "
                                     "2-D image cannot express"
                                   : "an image axis has no direction");
      for (size_t i = 0; i < n; ++i) g.direction[i][j] /= sum;
    }
    for (size_t i = 0; i < n; ++i)
      if (!(std::abs(g.origin_mm[i]) <= kFarthestMm))
        return direction_error("the origin is not finite or absurdly far");
    const double det2 = g.direction[0][0] * g.direction[1][1] - g.direction[0][1] * g.direction[1][0];
    if (dimensions == 2 && std::abs(det2) < 1e-12) return direction_error("the image axes are parallel");
  }
  for (size_t j = 0; j < size_t(dimensions); ++j) {
    if (g.spacing_mm[j] < 0) {
      g.spacing_mm[j] = -g.spacing_mm[j];
      for (size_t i = 0; i < size_t(dimensions); ++i) g.direction[i][j] = -g.direction[i][j];
    }
    if (!(g.spacing_mm[j] > 0) || !std::isfinite(g.spacing_mm[j]))  // a NIfTI-2 double beyond float's range
      return Error{ErrorCode::kCorrupt, "voxel spacing is not a positive number",
                   "NIfTI header, pixdim[" + std::to_string(j + 1) + "]", ""};
  }
  return g;
}

AxisMap itk_ras_map(const ItkGeometry& g) {
  AxisMap map;
  bool world_used[3] = {}, axis_used[3] = {};
  for (int step = 0; step < 3; ++step) {
    // The largest cosine left decides; of equal ones the last in row-major order, as in ITK's multimap.
    size_t row = 0, column = 0;
    double best = -1;
    for (size_t r = 0; r < 3; ++r)
      for (size_t c = 0; c < 3; ++c)
        if (!world_used[r] && !axis_used[c] && std::abs(g.direction[r][c]) >= best) {
          best = std::abs(g.direction[r][c]);
          row = r;
          column = c;
        }
    world_used[row] = axis_used[column] = true;
    map.axis[row] = int(column);
    const bool positive = g.direction[row][column] > 0;
    map.flip[row] = row < 2 ? positive : !positive;  // R and A are negative in LPS
  }
  return map;
}

ItkGeometry apply(const AxisMap& map, const ItkGeometry& g, const std::array<int64_t, 3>& shape_xyz) {
  ItkGeometry out = g;
  for (size_t i = 0; i < 3; ++i) {
    const size_t from = size_t(map.axis[i]);
    out.spacing_mm[i] = g.spacing_mm[from];
    for (size_t r = 0; r < 3; ++r) out.direction[r][i] = g.direction[r][from];
  }
  for (size_t r = 0; r < 3; ++r) {
    // ITK: index to point = (direction * diag(spacing)) * index + origin, summed in axis order.
    double sum = g.origin_mm[r];
    for (size_t i = 0; i < 3; ++i) {
      const double last = map.flip[i] ? double(shape_xyz[size_t(map.axis[i])] - 1) : 0.0;
      sum += out.direction[r][i] * out.spacing_mm[i] * last;
    }
    out.origin_mm[r] = sum;
  }
  for (size_t i = 0; i < 3; ++i)
    if (map.flip[i])
      for (size_t r = 0; r < 3; ++r) out.direction[r][i] = -out.direction[r][i];
  return out;
}

std::array<std::byte, 352> itk_header_bytes(const ItkGeometry& g, const std::array<int64_t, 3>& shape_xyz,
                                            NiftiType type) {
  const bool is_3d = g.dimensions == 3;
  // Rows of this matrix are the image axes in RAS; 2-D images get the third axis of the world.
  Float3 rows{{{0, 0, 0}, {0, 0, 0}, {0, 0, 1}}};
  for (size_t axis = 0; axis < size_t(g.dimensions); ++axis)
    for (size_t r = 0; r < 3; ++r) {
      if (!is_3d && r == 2) continue;
      const float v = float(-g.direction[r][axis]);
      rows[axis][r] = r == 2 ? v * -1.0f : v;
    }
  for (auto& row : rows) {
    const double sum = double(row[0] * row[0] + row[1] * row[1] + row[2] * row[2]);
    const float f = float(1.0 / std::sqrt(sum));  // directions have unit length: sum > 0
    for (float& v : row) v *= f;
  }
  const Float3 p = polar_float(rows);

  NiftiHeader h;
  h.type = type;
  h.dim = {g.dimensions, shape_xyz[0], shape_xyz[1], is_3d ? shape_xyz[2] : 1, 1, 1, 1, 1};
  h.slope = 1;
  h.qform_code = h.sform_code = 1;
  Matrix3 columns;  // column-normalised in double, as nifti_mat44_to_quatern does before its own polar step
  std::array<float, 3> offset{};
  for (size_t r = 0; r < size_t(g.dimensions); ++r)
    offset[r] = float(r < 2 ? -g.origin_mm[r] : g.origin_mm[r]);
  for (size_t j = 0; j < 3; ++j) {
    double sum = 0;
    for (size_t i = 0; i < 3; ++i) sum += double(p[j][i]) * double(p[j][i]);
    for (size_t i = 0; i < 3; ++i) columns[i][j] = double(p[j][i]) / std::sqrt(sum);
  }
  Float3 as_float;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) as_float[i][j] = float(columns[i][j]);
  const Float3 orthogonal = polar_float(as_float);
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) columns[i][j] = orthogonal[i][j];
  const Quaternion q = quaternion_of(columns);
  h.quatern = {q.b, q.c, q.d};
  h.pixdim[0] = q.qfac;
  h.pixdim[3] = 1;
  for (size_t j = 0; j < size_t(g.dimensions); ++j) h.pixdim[j + 1] = std::abs(float(g.spacing_mm[j]));
  for (size_t i = 0; i < 3; ++i) {
    h.qoffset[i] = offset[i];
    h.srow[i][3] = offset[i];
    for (size_t j = 0; j < 3; ++j) {
      const bool scaled = i < size_t(g.dimensions) && j < size_t(g.dimensions);
      h.srow[i][j] = scaled ? float(g.spacing_mm[j]) * p[j][i] : p[j][i];
    }
  }
  return nifti1_header_bytes(h, 2 | 8, 'r');
}

Result<Matrix4> nibabel_affine(const NiftiHeader& h) {
  const auto known = [](int code) { return code >= 1 && code <= 5; };  // others are taken as 0
  Matrix4 a{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}}};
  std::array<double, 3> zooms;
  for (size_t i = 0; i < 3; ++i) zooms[i] = std::abs(h.pixdim[i + 1]);
  if (known(h.sform_code)) {
    for (size_t i = 0; i < 3; ++i) a[i] = h.srow[i];
  } else if (known(h.qform_code)) {
    const long double b = h.quatern[0], c = h.quatern[1], d = h.quatern[2];
    const long double w2 = 1.0L - (b * b + c * c + d * d);
    const long double tolerance = 3.0L * (h.version == 1 ? std::numeric_limits<float>::epsilon()
                                                         : std::numeric_limits<double>::epsilon());
    long double w = 0;
    if (!(std::abs(w2) < tolerance)) {
      if (!(w2 >= 0))
        return Error{ErrorCode::kCorrupt, "the quaternion is longer than 1", "NIfTI header, quatern_b/c/d",
                     "Set a valid qform"};
      w = std::sqrt(w2);
    }
    const long double norm = w * w + b * b + c * c + d * d;
    const long double s = 2.0L / norm;
    const long double x = b * s, y = c * s, z = d * s;
    const long double wx = w * x, wy = w * y, wz = w * z, xx = b * x, xy = b * y, xz = b * z;
    const long double yy = c * y, yz = c * z, zz = d * z;
    const std::array<std::array<long double, 3>, 3> r{{{1.0L - (yy + zz), xy - wz, xz + wy},
                                                       {xy + wz, 1.0L - (xx + zz), yz - wx},
                                                       {xz - wy, yz + wx, 1.0L - (xx + yy)}}};
    const double qfac = h.pixdim[0] == -1 ? -1 : 1;
    for (size_t i = 0; i < 3; ++i) {
      for (size_t j = 0; j < 3; ++j) a[i][j] = double(r[i][j] * (j == 2 ? qfac * zooms[j] : zooms[j]));
      a[i][3] = h.qoffset[i];
    }
  } else {
    zooms[0] = -zooms[0];
    for (size_t i = 0; i < 3; ++i) {
      a[i][i] = zooms[i];
      a[i][3] = -(double(h.dim[i + 1] - 1) / 2.0) * zooms[i];
    }
  }
  for (const auto& row : a)
    for (double v : row)
      if (!(std::abs(v) <= kFarthestMm))
        return Error{ErrorCode::kCorrupt, "the voxel-to-world matrix is not finite or absurdly large",
                     "NIfTI header, sform/qform", "Set a valid sform"};
  // nibabel would read on, but could not write labels with such a matrix.
  for (double size : voxel_sizes(a))
    if (!(size >= 1e-6 && size <= 1e6))
      return Error{ErrorCode::kCorrupt, "the voxel-to-world matrix has an axis of no plausible length",
                   "NIfTI header, sform/qform", "Set a valid sform"};
  return a;
}

std::array<double, 3> voxel_sizes(const Matrix4& a) {
  std::array<double, 3> out;
  for (size_t j = 0; j < 3; ++j)
    out[j] = std::sqrt(a[0][j] * a[0][j] + a[1][j] * a[1][j] + a[2][j] * a[2][j]);
  return out;
}

Result<AxisMap> nibabel_ras_map(const Matrix4& a) {
  const std::array<double, 3> zooms = voxel_sizes(a);
  Matrix3 r;
  for (size_t i = 0; i < 3; ++i)
    for (size_t j = 0; j < 3; ++j) r[i][j] = a[i][j] / (zooms[j] == 0 ? 1.0 : zooms[j]);
  if (!polar(r))
    return direction_error("the voxel-to-world matrix is singular: the axes have no order in the world");
  AxisMap map;
  bool used[3] = {}, done[3] = {};
  // Strongest axis first (by its largest component before any row is taken; the first of equals), so that an
  // oblique image is named the same way whatever the order of its axes.
  std::array<double, 3> strength{};
  for (size_t j = 0; j < 3; ++j)
    for (size_t i = 0; i < 3; ++i) strength[j] = std::max(strength[j], r[i][j] * r[i][j]);
  for (int step = 0; step < 3; ++step) {
    size_t column = 3;
    for (size_t j = 0; j < 3; ++j)
      if (!done[j] && (column == 3 || strength[j] > strength[column])) column = j;
    done[column] = true;
    size_t row = 3;
    for (size_t i = 0; i < 3; ++i)
      if (!used[i] && (row == 3 || std::abs(r[i][column]) > std::abs(r[row][column]))) row = i;
    used[row] = true;
    map.axis[row] = int(column);
    map.flip[row] = r[row][column] < 0;
  }
  return map;
}

Matrix4 apply(const AxisMap& map, const Matrix4& a, const std::array<int64_t, 3>& shape_xyz) {
  // old index = t * new index
  Matrix4 t{};
  t[3][3] = 1;
  for (size_t i = 0; i < 3; ++i) {
    const size_t from = size_t(map.axis[i]);
    t[from][i] = map.flip[i] ? -1 : 1;
    t[from][3] = map.flip[i] ? double(shape_xyz[from] - 1) : 0;
  }
  Matrix4 out{};
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 4; ++j)
      for (size_t k = 0; k < 4; ++k) out[i][j] += a[i][k] * t[k][j];
  return out;
}

std::array<std::byte, 352> nibabel_header_bytes(const Matrix4& a, const std::array<int64_t, 3>& shape_xyz,
                                                NiftiType type) {
  NiftiHeader h;
  h.type = type;
  h.dim = {3, shape_xyz[0], shape_xyz[1], shape_xyz[2], 1, 1, 1, 1};
  h.slope = 1;
  h.pixdim.fill(1);
  h.sform_code = 2;
  h.qform_code = 0;
  const std::array<double, 3> zooms = voxel_sizes(a);
  Matrix3 r;
  for (size_t i = 0; i < 3; ++i) {
    h.qoffset[i] = a[i][3];
    h.srow[i] = a[i];
    h.pixdim[i + 1] = zooms[i];
    for (size_t j = 0; j < 3; ++j) r[i][j] = a[i][j] / zooms[j];
  }
  if (polar(r)) {  // a singular sform has no rotation; the quaternion stays zero, qform_code is 0 anyway
    const Quaternion q = quaternion_of(r);
    h.quatern = {q.b, q.c, q.d};
    h.pixdim[0] = q.qfac;
  }
  return nifti1_header_bytes(h, 0, 0);
}

Geometry geometry_from(const Matrix4& a, const std::array<double, 3>& spacing_xyz) {
  Geometry g;
  const std::array<double, 3> zooms = voxel_sizes(a);
  for (size_t i = 0; i < 3; ++i) {
    const double sign = i < 2 ? -1.0 : 1.0;
    g.spacing_mm[i] = spacing_xyz[2 - i];
    g.origin_mm[i] = sign * a[i][3];
    for (size_t j = 0; j < 3; ++j)
      g.direction[i][j] = zooms[j] > 0 ? sign * a[i][j] / zooms[j] : (i == j ? 1 : 0);
  }
  return g;
}

}  // namespace isoline
