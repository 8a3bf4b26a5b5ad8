#include "isoline/metrics/surfel_area.h"

#include <bit>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace isoline {
namespace {

// A point of the cell in half edges: each coordinate 0, 1 or 2.
using Point = std::array<int, 3>;
// The normal of a triangle, with 8 times its area per axis in the unit cube.
using Normal = std::array<int, 3>;
using Loop = std::vector<Point>;

Normal normal_of(const Point& a, const Point& b, const Point& c) {
  const Point u{b[0] - a[0], b[1] - a[1], b[2] - a[2]}, v{c[0] - a[0], c[1] - a[1], c[2] - a[2]};
  return {u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]};
}

double area_of(const Normal& n, const Vec3<double>& spacing) {
  const double z = n[0] / 8.0 * spacing[1] * spacing[2], y = n[1] / 8.0 * spacing[0] * spacing[2],
               x = n[2] / 8.0 * spacing[0] * spacing[1];
  return std::sqrt(z * z + y * y + x * x);
}

bool inside(uint32_t code, const Point& corner) {
  return (code & corner_bit(corner[0] / 2, corner[1] / 2, corner[2] / 2)) != 0;
}

// The pieces of the contour on the six faces, as pairs of crossings. Inside corners of ambiguous faces are
// cut off one by one.
std::vector<std::array<Point, 2>> face_segments(uint32_t code) {
  std::vector<std::array<Point, 2>> out;
  for (size_t axis = 0; axis < 3; ++axis)
    for (int side : {0, 2}) {
      std::array<Point, 4> corner;  // around the face
      for (size_t k = 0; k < 4; ++k) {
        corner[k][axis] = side;
        corner[k][(axis + 1) % 3] = k == 1 || k == 2 ? 2 : 0;
        corner[k][(axis + 2) % 3] = k >= 2 ? 2 : 0;
      }
      std::vector<size_t> crossed;  // k: the edge from corner k to the next
      for (size_t k = 0; k < 4; ++k)
        if (inside(code, corner[k]) != inside(code, corner[(k + 1) % 4])) crossed.push_back(k);
      const auto middle = [&](size_t k) {
        const Point &a = corner[k], &b = corner[(k + 1) % 4];
        return Point{(a[0] + b[0]) / 2, (a[1] + b[1]) / 2, (a[2] + b[2]) / 2};
      };
      if (crossed.size() == 2) out.push_back({middle(crossed[0]), middle(crossed[1])});
      if (crossed.size() == 4)
        for (size_t k = 0; k < 4; ++k)
          if (inside(code, corner[k])) out.push_back({middle((k + 3) % 4), middle(k)});
    }
  return out;
}

// Every crossing lies on two faces, so the segments close to loops.
std::vector<Loop> loops_of(uint32_t code) {
  std::vector<std::array<Point, 2>> segments = face_segments(code);
  std::vector<Loop> loops;
  while (!segments.empty()) {
    Loop loop{segments.back()[0], segments.back()[1]};
    segments.pop_back();
    while (true) {
      size_t next = 0;
      while (next < segments.size() && segments[next][0] != loop.back() && segments[next][1] != loop.back())
        ++next;
      if (next == segments.size()) throw std::logic_error("surfel_area: an open contour");
      const Point to = segments[next][0] == loop.back() ? segments[next][1] : segments[next][0];
      segments.erase(segments.begin() + std::ptrdiff_t(next));
      if (to == loop.front()) break;
      loop.push_back(to);
    }
    loops.push_back(std::move(loop));
  }
  return loops;
}

std::vector<Normal> fan(const Loop& loop, size_t apex) {
  std::vector<Normal> out;
  const size_t n = loop.size();
  for (size_t k = 1; k + 1 < n; ++k)
    out.push_back(normal_of(loop[apex], loop[(apex + k) % n], loop[(apex + k + 1) % n]));
  return out;
}

std::vector<Normal> triangles_of(const Loop& loop) {
  if (loop.size() == 6) {
    std::vector<Normal> out{normal_of(loop[0], loop[2], loop[4])};
    for (size_t k : {0, 2, 4}) out.push_back(normal_of(loop[k], loop[k + 1], loop[(k + 2) % 6]));
    return out;
  }
  std::vector<Normal> best;
  double largest = -1;
  for (size_t apex = 0; apex < loop.size(); ++apex) {
    std::vector<Normal> triangles = fan(loop, apex);
    double area = 0;
    for (const Normal& n : triangles) area += area_of(n, {1, 1, 1});
    if (area > largest) {
      largest = area;
      best = std::move(triangles);
    }
  }
  return best;
}

std::array<std::vector<Normal>, 256> all_triangles() {
  std::array<std::vector<Normal>, 256> table;
  for (uint32_t code = 1; code < 255; ++code)
    for (const Loop& loop : loops_of(std::popcount(code) <= 4 ? code : 255 - code))
      for (const Normal& n : triangles_of(loop)) table[code].push_back(n);
  return table;
}

}  // namespace

std::array<double, 256> surfel_areas_mm2(const Vec3<double>& spacing_mm) {
  static const std::array<std::vector<Normal>, 256> triangles = all_triangles();
  std::array<double, 256> areas{};
  for (size_t code = 0; code < 256; ++code)
    for (const Normal& n : triangles[code]) areas[code] += area_of(n, spacing_mm);
  return areas;
}

}  // namespace isoline
